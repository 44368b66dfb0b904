"""Starting, keeping and ending parts, with small real processes instead of engines."""

import asyncio
import io
import time
from contextlib import asynccontextmanager

import aiohttp
import psutil
import pytest
from rich.console import Console

from support.local import fake_part
from support.processes import marked, until
from tempo_operator.local.display import Display
from tempo_operator.local.errors import UpError, tail
from tempo_operator.local.supervisor import Supervisor, pause_s, waves


@pytest.fixture
def mark(monkeypatch):
    with marked() as mark:
        for name, value in mark.env.items():
            monkeypatch.setenv(name, value)
        yield mark


@pytest.fixture
def said():
    return io.StringIO()


@asynccontextmanager
async def supervised(folder, said, *parts):
    """A supervisor of `parts` that ends them whatever happens, and leaves nothing."""
    supervisor = Supervisor(parts, folder, Display(Console(file=said, width=400)))
    try:
        yield supervisor
    finally:
        await supervisor.end()


@asynccontextmanager
async def kept(supervisor):
    await supervisor.start()
    keeping = asyncio.create_task(supervisor.keep())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


def part_of(guard_pid):
    return psutil.Process(guard_pid).children()[0]


def notes(folder):
    return (folder / "notes").read_text().splitlines()


async def test_parts_start_in_order_and_end_in_reverse_order(tmp_path, said, mark):
    parts = [
        fake_part(tmp_path, "engine"),
        fake_part(tmp_path, "sidecar", "engine"),
        fake_part(tmp_path, "router", "sidecar"),
    ]
    async with supervised(tmp_path, said, *reversed(parts)) as supervisor:
        await supervisor.start()
        assert notes(tmp_path) == ["start engine", "start sidecar", "start router"]
        assert said.getvalue().count("ready after") == 3
    assert notes(tmp_path)[3:] == ["end router", "end sidecar", "end engine"]
    assert not mark.alive()


async def test_replicas_start_side_by_side(tmp_path, said, mark):
    parts = [fake_part(tmp_path, "a"), fake_part(tmp_path, "b"), fake_part(tmp_path, "c", "a", "b")]
    assert [[part.name for part in wave] for wave in waves(parts)] == [["a", "b"], ["c"]]


def test_dependencies_that_cannot_be_met_are_refused(tmp_path):
    with pytest.raises(ValueError, match="can't be met: b"):
        waves([fake_part(tmp_path, "a"), fake_part(tmp_path, "b", "absent")])


async def test_a_part_that_ends_early_is_an_error_that_names_its_log(tmp_path, said, mark):
    bad = fake_part(tmp_path, "engine", mood="crash")
    async with supervised(tmp_path, said, bad, fake_part(tmp_path, "router", "engine")) as supervisor:
        with pytest.raises(UpError, match="engine ended with exit code 1 before it was ready; log: ") as caught:
            await supervisor.start()
        assert "the fake crashed on purpose" in tail(caught.value.log)
        assert list(supervisor.pids) == ["engine"]


async def test_when_one_of_two_fails_the_other_is_not_left_running(tmp_path, said, mark):
    async with supervised(
        tmp_path, said, fake_part(tmp_path, "a", mood="never ready"), fake_part(tmp_path, "b", mood="crash")
    ) as supervisor:
        with pytest.raises(UpError, match="b ended"):
            await supervisor.start()
    assert not mark.alive()


async def test_a_part_that_is_never_ready_is_given_up_and_ended(tmp_path, said, mark):
    slow = fake_part(tmp_path, "engine", mood="never ready", ready_within_s=1.5)
    async with supervised(tmp_path, said, slow) as supervisor:
        with pytest.raises(UpError, match=r"engine was not ready after 1.5 s; log: .*engine.log"):
            await supervisor.start()
        assert not mark.alive()


async def test_a_part_that_dies_is_started_again_and_the_user_told(tmp_path, said, mark):
    part = fake_part(tmp_path, "engine")
    async with supervised(tmp_path, said, part) as supervisor, kept(supervisor):
        first = supervisor.pids["engine"]
        part_of(first).kill()
        await until(lambda: "engine is ready again" in said.getvalue())
        assert "engine was ended by SIGKILL; it starts again in 1 s" in said.getvalue()
        assert supervisor.pids["engine"] != first
        async with aiohttp.ClientSession() as session, session.get(part.ready_url) as response:
            assert response.status == 200
    assert not mark.alive()


def test_pauses_between_restarts_double_up_to_half_a_minute():
    assert [pause_s(failures) for failures in (1, 2, 3, 5, 6, 50)] == [1, 2, 4, 16, 30, 30]


async def test_a_part_that_ignores_sigterm_is_killed_after_its_time(tmp_path, said, mark):
    async with supervised(
        tmp_path, said, fake_part(tmp_path, "engine", mood="stubborn", end_within_s=0.5)
    ) as supervisor:
        await supervisor.start()
    assert not mark.alive()


async def test_ending_now_does_not_wait_for_a_part_that_ignores_sigterm(tmp_path, said, mark):
    async with supervised(
        tmp_path, said, fake_part(tmp_path, "engine", mood="stubborn", end_within_s=60)
    ) as supervisor:
        await supervisor.start()
        since = time.monotonic()
        ending = asyncio.create_task(supervisor.end())
        await asyncio.sleep(0)
        supervisor.end_now()
        await ending
        assert time.monotonic() - since < 20
    assert not mark.alive()


async def test_a_start_that_is_cancelled_can_be_ended(tmp_path, said, mark):
    async with supervised(tmp_path, said, fake_part(tmp_path, "engine", mood="never ready")) as supervisor:
        starting = asyncio.create_task(supervisor.start())
        await until((tmp_path / "notes").exists)
        starting.cancel()
        await asyncio.wait([starting])
        assert mark.alive()
    assert not mark.alive()
