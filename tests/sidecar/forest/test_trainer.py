import asyncio
import sys
import time
from contextlib import suppress

import psutil
import pytest

from support.lengths import sampled, workload
from support.serving import eventually
from tempo_sidecar.forest.trainer import GROW, TrainingError, train


def python(code):
    return (sys.executable, "-c", code)


async def test_a_process_of_its_own_grows_the_forest(records, grown):
    found = await train(records)
    row = records.rows[0]
    assert (found.forest.quantiles(row) == grown.forest.quantiles(row)).all()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise SystemExit('out of trees')", "ended with status 1: out of trees"),
        ("import os; os.abort()", "ended with status -6: no word why"),
        ("raise RuntimeError('first line\\nlast line')", "ended with status 1: last line"),
        ("print('not a forest')", "its answer is no forest"),
        ("", "its answer is no forest"),
        ("import sys; sys.stdin.close(); sys.stdout.write('x' * 10**6)", "its answer is no forest"),
    ],
)
async def test_a_trainer_that_fails_says_why_in_one_line(records, code, why):
    with pytest.raises(TrainingError, match=why) as caught:
        await train(records, python(code))
    assert "\n" not in str(caught.value)


async def test_a_trainer_that_is_not_there_is_an_error():
    with pytest.raises(TrainingError, match="can't be started"):
        await train(_few(), ("/nowhere/python",))


async def test_a_trainer_that_hangs_is_ended_in_time(records):
    started = time.monotonic()
    with pytest.raises(TrainingError, match=r"took more than 0\.3 s"):
        await train(records, python("import time; time.sleep(60)"), timeout_s=0.3)
    assert time.monotonic() - started < 10


async def test_stopping_the_sidecar_ends_the_trainer(records, tmp_path):
    pid_file = tmp_path / "pid"
    code = f"import os, pathlib, time; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(60)"
    training = asyncio.create_task(train(records, python(code)))
    await eventually(lambda: pid_file.exists() and pid_file.read_text(), timeout_s=30)
    training.cancel()
    with suppress(asyncio.CancelledError):
        await training
    assert not psutil.pid_exists(int(pid_file.read_text()))


async def test_the_event_loop_is_never_held_while_a_forest_grows(records):
    training = asyncio.create_task(train(records))
    longest, before = 0.0, time.thread_time()
    while not training.done():
        await asyncio.sleep(0.001)  # the loop's own pulse, whose delays are what is measured
        now = time.thread_time()  # of this thread only: how busy the machine is does not count
        longest, before = max(longest, now - before), now
    await training
    assert longest < 0.05


async def test_the_trainer_yields_to_everything_else():
    process = await asyncio.create_subprocess_exec(*GROW, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    try:
        await eventually(lambda: psutil.Process(process.pid).nice() == 19, timeout_s=30)
    finally:
        await process.communicate(b"")


def _few():
    return sampled(workload(3, seed=1)).records()
