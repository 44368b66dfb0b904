import json
import os
import sys
import textwrap

import pytest

from tempo_bench import pool as pool_module
from tempo_bench.pool import PoolError, pool


@pytest.fixture
def fake_up(tmp_path, monkeypatch):
    """Replace `tempo up` by a script that gets its arguments."""

    def install(code):
        script = tmp_path / "fake_up.py"
        script.write_text(textwrap.dedent(code))
        monkeypatch.setattr(pool_module, "tempo", lambda *arguments: [sys.executable, str(script), *arguments])

    return install


READY = """
    import json, os, signal, sys, time
    path = sys.argv[sys.argv.index("--ready-file") + 1]
    signal.signal(signal.SIGTERM, lambda *_: (print("drained", flush=True), sys.exit(0)))
    with open(path + ".part", "w") as file:
        json.dump({"url": "http://127.0.0.1:1/v1", "pid": os.getpid(), "argv": sys.argv[1:]}, file)
    os.rename(path + ".part", path)
    print("ready", flush=True)
    time.sleep(60)  # runs until it is told to end
"""


def test_the_pool_is_started_with_the_policy_and_stopped_in_order(fake_up, tmp_path):
    fake_up(READY)
    folder = tmp_path / "logs"
    with pool(tmp_path / "pool.yaml", "engine", folder) as url:
        assert url == "http://127.0.0.1:1/v1"
        facts = json.loads((folder / "ready.json").read_text())
    assert facts["argv"][:5] == ["up", "-f", str(tmp_path / "pool.yaml"), "--policy", "engine"]
    assert (folder / "up.log").read_text() == "ready\ndrained\n"
    with pytest.raises(ProcessLookupError):
        os.kill(facts["pid"], 0)


def test_an_interrupted_benchmark_stops_its_pool(fake_up, tmp_path):
    fake_up(READY)
    with pytest.raises(KeyboardInterrupt), pool(tmp_path / "pool.yaml", "tempo", tmp_path / "logs"):
        raise KeyboardInterrupt
    assert "drained" in (tmp_path / "logs" / "up.log").read_text()


def test_a_pool_that_cannot_start_shows_the_end_of_its_log(fake_up, tmp_path):
    fake_up("print('no memory'); raise SystemExit(3)")
    with pytest.raises(PoolError, match="ended with status 3:\nno memory"), pool(tmp_path, "tempo", tmp_path / "logs"):
        pass


def test_a_ready_file_of_an_earlier_run_is_not_believed(fake_up, tmp_path):
    fake_up("raise SystemExit(1)")
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "ready.json").write_text('{"url": "http://127.0.0.1:1/v1"}')
    with pytest.raises(PoolError), pool(tmp_path, "tempo", folder):
        pass


def test_a_missing_manifest_is_told_by_tempo_up_itself(tmp_path):
    with pytest.raises(PoolError, match=r"nowhere\.yaml"), pool(tmp_path / "nowhere.yaml", "tempo", tmp_path / "logs"):
        pass
