"""`tempo router`, as it is typed."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from support.serving import QUICKSTART
from tempo_router.cli import router


def run(*args):
    result = CliRunner().invoke(router, args)
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["--replica", "r0"], "'r0': '' is no replica; write a name and a URL"),
        (["--replica", "r0=https://h"], "'https://h' asks for TLS"),
        (["--replica", "r0=localhost:9000"], "is no replica"),
        (["--replica", "=http://h"], "is no replica"),
        (["--replica", "r0=http://h:port"], "is no replica"),
        (["--replica", "r0=http://a", "--replica", "r0=http://b"], "there are two called 'r0'"),
        ([], "Say where the sidecars are: with --replica or with --replicas-file"),
        (["--replica", "r0=http://a", "--replicas-file", "f"], "not both"),
    ],
)
def test_a_replica_that_can_t_be_used_is_refused_in_one_line(args, problem):
    result = run("--config", str(QUICKSTART), *args)
    assert result.exit_code == 2
    assert problem in result.output


def test_a_bad_manifest_is_refused_in_one_line(tmp_path):
    path = tmp_path / "pool.yaml"
    path.write_text(QUICKSTART.read_text().replace("ttft:", "tfft:"))
    result = run("--config", str(path), "--replica", "r0=http://h")
    assert result.exit_code == 1
    assert "pool.yaml: SLOClass chat: spec.objectives.tfft: unknown field; did you mean ttft?" in result.output


def test_the_command_serves_until_it_is_told_to_stop():
    tempo = Path(sys.executable).with_name("tempo")
    command = [tempo, "router", "--config", QUICKSTART, "--port", "0", "--replica", "r0=http://127.0.0.1:9"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert re.match(r"router ready on http://127.0.0.1:\d+\n", process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
