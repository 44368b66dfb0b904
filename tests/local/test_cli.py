"""`tempo up` as a command: its errors, and a whole life of it with fakes for vLLM, sidecar and router."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from support.local import MANIFESTS
from support.processes import marked, wait_until
from tempo_api.manifest import load_pool
from tempo_operator.local.cli import up

# `tempo up` whose parts are small servers of the same names, ports and order.
FAKE_UP = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
from support.local import FAKE_SERVER
from tempo_operator.local import cli, run
mood, real_parts = sys.argv.pop(1), run.parts
def fake_parts(pool, local):
    def fake(part):
        port, notes = part.url.rpartition(":")[2], str(local.folder / "notes")
        argv = (sys.executable, "-c", FAKE_SERVER, port, notes, part.name, mood)
        return replace(part, argv=argv, ready_within_s=20.0)
    return [fake(part) for part in real_parts(pool, local)]
run.parts, run.require_memory = fake_parts, lambda needed_gb: None
cli.up()
"""
TESTS = Path(__file__).parents[1]


@pytest.fixture
def manifests(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    path = tmp_path / "pool.yaml"
    path.write_text(MANIFESTS.replace("/models/small", str(model)))
    return path


def run(*arguments):
    return CliRunner().invoke(up, [str(argument) for argument in arguments])


def test_help_shows_examples():
    result = run("--help")
    assert result.exit_code == 0
    assert "tempo up -f examples/quickstart.yaml\n" in result.output


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("replicas: 2", "replica: 2", "Error: pool.yaml: TempoPool small: spec.replica: unknown field; did you mean"),
        ("weight: 0.5", "weight: -0.5", "Error: pool.yaml: SLOClass batch: spec.gain.weight: "),
        ("objectives: {ttft: 2s, tbt: 150ms}, ", "", "Error: pool.yaml: SLOClass chat: spec.objectives: "),
        ("BestEffort", "BestEffort, default: true", "Error: pool.yaml: SLOClass batch: spec.default: "),
        ("kind: TempoPool", "kind: TempoPond", "Error: pool.yaml: TempoPond small: kind: "),
        ('OMP_NUM_THREADS, value: "2"', "A, valueFrom: {}", "Error: TempoPool small: spec.engine.env[0]: must be a"),
        (
            'OMP_NUM_THREADS, value: "2"',
            "VLLM_CPU_KVCACHE_SPACE, value: 1Gi",
            "Error: TempoPool small: spec.engine.env: VLLM_CPU_KVCACHE_SPACE must be a number of gigabytes",
        ),
        ("replicas: 2", "replicas: 0", "Error: TempoPool small: spec.replicas: is 0"),
    ],
)  # fmt: skip
def test_a_bad_manifest_is_one_clear_line(manifests, old, new, message):
    manifests.write_text(manifests.read_text().replace(old, new))
    result = run("-f", manifests, "--port", 0, "--log-dir", manifests.parent / "logs")
    assert result.exit_code == 1
    assert result.output.startswith(message)
    assert result.output.count("\n") == 1


def test_a_missing_manifest_a_missing_model_and_a_taken_port_are_one_line_each(manifests):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for arguments, message in [
            (["-f", "absent.yaml"], "Error: absent.yaml: can't be read: No such file or directory\n"),
            (["-f", manifests, "--model", "/absent"], "Error: model folder /absent is not there\n"),
            (["-f", manifests, "--port", port], f"Error: port {port} is taken; "),
            (["-f", manifests, "--port", 0, "--replicas", 1000], "Error: not enough memory: "),
        ]:
            result = run(*arguments)
            assert result.exit_code == 1
            assert result.output.startswith(message)
            assert result.output.count("\n") == 1


def test_a_log_folder_that_cannot_be_written_is_told_with_the_remedy(manifests):
    result = run("-f", manifests, "--port", 0, "--log-dir", manifests / "under-a-file")
    assert f"Error: can't write {manifests}/under-a-file: Not a directory" in result.output
    assert "--log-dir" in result.output


def test_a_folder_for_what_is_learned_that_cannot_be_written_is_told_with_the_remedy(manifests):
    logs = manifests.parent / "logs"
    result = run("-f", manifests, "--port", 0, "--log-dir", logs, "--state-dir", manifests / "under-a-file")
    assert f"Error: can't write {manifests}/under-a-file: Not a directory" in result.output
    assert "--state-dir" in result.output


class FakeUp:
    """A running `tempo up` over fakes."""

    def __init__(self, manifests, mark, mood):
        self.logs, self.ready_file, self.mark = manifests.parent / "logs", manifests.parent / "ready.json", mark
        options = [
            "-f",
            manifests,
            "--port",
            0,
            "--replicas",
            1,
            "--log-dir",
            self.logs,
            "--ready-file",
            self.ready_file,
        ]
        argv = [sys.executable, "-c", FAKE_UP, TESTS, mood, *options]
        self.process = subprocess.Popen(
            [str(word) for word in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | mark.env,
        )  # fmt: skip

    def until_ready(self):
        wait_until(lambda: self.ready_file.exists() or self.process.poll() is not None, 40)
        return json.loads(self.ready_file.read_text())

    def notes(self):
        return (self.logs / "notes").read_text().splitlines()

    def end(self):
        """What it told, and its exit code."""
        return self.process.communicate(timeout=40)[0], self.process.returncode


@pytest.fixture
def start(manifests):
    """Starts a `FakeUp` of a mood; whatever is left of it in the end is killed."""
    with marked() as mark:
        started = []

        def start(mood="good"):
            started.append(FakeUp(manifests, mark, mood))
            return started[-1]

        yield start
        for up in started:
            up.process.kill()
            up.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_router_sidecars_and_engines_in_this_order_and_leaves_nothing(start, number):
    pool = start()
    facts = pool.until_ready()
    with urllib.request.urlopen(facts["url"]) as answer:
        assert answer.status == 200
    assert sorted(facts["parts"]) == ["engine-0", "router", "sidecar-0"]
    pool.process.send_signal(number)
    told, code = pool.end()
    assert code == 0
    assert f"Ready: {facts['url']}" in told
    assert "stopping" in told
    assert pool.notes()[3:] == ["end router", "end sidecar-0", "end engine-0"]
    assert not pool.mark.alive()


def test_a_second_signal_does_not_wait(start):
    pool = start("stubborn")
    pool.until_ready()
    pool.process.send_signal(signal.SIGINT)
    assert any("stopping" in line for line in iter(pool.process.stdout.readline, ""))
    since = time.monotonic()
    pool.process.send_signal(signal.SIGINT)
    assert pool.end()[1] == 0
    assert time.monotonic() - since < 30  # waiting would take three times the drain, one after the other
    assert not pool.mark.alive()


def test_a_killed_tempo_up_leaves_nothing(start):
    pool = start("stubborn")
    pool.until_ready()
    assert len(pool.mark.alive()) == 7  # itself, three guards, three parts
    pool.process.kill()
    wait_until(lambda: not pool.mark.alive())


def test_a_part_that_crashes_shows_the_end_of_its_log(start):
    told, code = start("crash").end()
    assert code == 1
    assert "the fake crashed on purpose\nError: engine-0 ended with exit code 1 before it was ready; log: " in told


def test_a_running_pool_follows_its_manifests_and_survives_a_bad_edit(start, manifests):
    pool = start()
    pool.until_ready()
    compiled = pool.logs / "config.yaml"
    good = manifests.read_text()
    manifests.write_text(good.replace("ttft: 2s", "ttft: 7s"))
    wait_until(lambda: load_pool(compiled).classes["chat"].objectives.ttft_s == 7.0)
    manifests.write_text(good.replace("ttft: 2s", "ttft: soon"))
    lines = iter(pool.process.stdout.readline, "")
    assert any("SLOClass chat: spec.objectives.ttft: 'soon' is not a duration" in line for line in lines)
    assert load_pool(compiled).classes["chat"].objectives.ttft_s == 7.0
    assert pool.process.poll() is None
