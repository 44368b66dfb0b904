import asyncio
import subprocess
import sys

import pytest
from click.testing import CliRunner
from rich.console import Console

from tempo_bench.accounting import CallRecord, UnitRecord
from tempo_bench.cli import bench
from tempo_bench.machine import describe
from tempo_bench.progress import Tally, shown
from tempo_bench.workload import Kind
from tempo_core.slo import Objectives, Pattern, SLOClass


def invoke(*arguments):
    return CliRunner().invoke(bench, arguments)


@pytest.mark.parametrize("command", [(), ("demo",), ("load",), ("overhead",)])
def test_help_has_examples(command):
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"tempo bench {' '.join(command) or 'demo'}" in result.output


def test_bench_is_a_command_of_tempo():
    done = subprocess.run(
        [sys.executable, "-m", "tempo_api.cli", "bench", "-h"], check=True, capture_output=True, text=True
    )
    assert "overhead" in done.stdout


def test_help_does_not_wait_for_matplotlib():
    code = "import sys, tempo_bench.cli; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("demo", "--seeds", "1,two"), "'1,two' is not a list of integers such as 1,2,3"),
        (("demo", "--rate", "0"), "--rate"),
        (("demo", "-f", "nowhere.yaml"), "nowhere.yaml"),
        (("load", "-f", "nowhere.yaml"), "nowhere.yaml"),
        (("overhead", "-f", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_bad_input_is_a_line_not_a_traceback(arguments, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code != 0
    assert problem in result.output
    assert "Traceback" not in result.output
    assert result.exc_info[0] is SystemExit


CLASSES = {"tool": SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=5.0))}


def tally_of_one():
    tally = Tally(CLASSES)
    tally.arrived(Kind.TOOL)
    tally.arrived(Kind.TOOL)
    tally.ended(UnitRecord("u", Kind.TOOL, 0.0, ((CallRecord(0.0, 1.0, ((1.0, 5),), 10, "x"),),)))
    return tally


async def test_without_a_terminal_progress_is_plain_lines():
    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        async with shown(tally_of_one(), "overload", 2, console):
            await asyncio.sleep(0)
    lines = capture.get().splitlines()
    assert lines[0] == "overload: started"
    assert lines[-1] == "overload: 0 s; tool 1/2 done, 100% on time"


async def test_in_a_terminal_progress_is_a_table():
    console = Console(width=100, force_terminal=True, color_system=None)
    with console.capture() as capture:
        async with shown(tally_of_one(), "overload", 2, console):
            await asyncio.sleep(0)
    assert "overload: 2 of 2 sent" in capture.get()
    assert "in flight" in capture.get()


def test_the_machine_is_described_in_a_line():
    assert "cores" in describe()
    assert "\n" not in describe()
