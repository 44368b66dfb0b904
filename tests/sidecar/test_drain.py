"""The note by which an engine that is to end has its sidecar drain first."""

import asyncio

import aiohttp
import pytest

from support.fake_engine import MODEL, FakeEngine
from support.processes import until
from support.serving import QUICKSTART, eventually, serving
from tempo_api.http.server import Lifecycle
from tempo_api.openai import APIError
from tempo_api.reload import Reloader
from tempo_sidecar.drain import DrainNote
from tempo_sidecar.lengths import WindowLengths
from tempo_sidecar.proxy import Sidecar


@pytest.fixture
def note(tmp_path):
    return tmp_path / "drain"


@pytest.fixture
def answer(tmp_path):
    return tmp_path / "drained"


def test_without_a_note_nothing_changes(note, answer):
    lifecycle = Lifecycle(1)
    DrainNote(note, 10.0).poll(lifecycle, 0.0)
    assert not lifecycle.draining
    assert not answer.exists()


def test_with_a_note_nothing_new_is_taken_and_the_answer_comes_once_nothing_is_left(note, answer):
    lifecycle, drain = Lifecycle(2), DrainNote(note, 10.0)
    lifecycle.enter()
    note.touch()
    drain.poll(lifecycle, 0.0)
    with pytest.raises(APIError, match="shutting down"):
        lifecycle.enter()
    assert not answer.exists()
    lifecycle.leave()
    drain.poll(lifecycle, 1.0)
    assert answer.exists()


def test_requests_that_take_too_long_do_not_hold_up_the_answer(note, answer):
    lifecycle, drain = Lifecycle(1), DrainNote(note, 10.0)
    lifecycle.enter()
    note.touch()
    drain.poll(lifecycle, 5.0)
    drain.poll(lifecycle, 14.9)
    assert not answer.exists()
    drain.poll(lifecycle, 15.0)
    assert answer.exists()


def test_a_new_engine_without_a_note_gets_requests_again(note, answer):
    lifecycle, drain = Lifecycle(1), DrainNote(note, 10.0)
    note.touch()
    drain.poll(lifecycle, 0.0)
    note.unlink()
    answer.unlink()
    drain.poll(lifecycle, 1.0)
    lifecycle.enter()
    assert not answer.exists()


def test_the_end_of_a_note_does_not_call_off_a_drain_of_the_process_s_own(note):
    lifecycle, drain = Lifecycle(1), DrainNote(note, 10.0)
    lifecycle.draining = True
    drain.poll(lifecycle, 0.0)
    assert lifecycle.draining


def test_a_folder_that_can_t_be_written_is_logged(note, caplog):
    drain = DrainNote(note, 10.0)
    note.touch()
    (note.parent / "drained").symlink_to(note.parent / "absent" / "file")
    drain.poll(Lifecycle(1), 0.0)
    assert "can't be written" in caplog.text


async def test_a_stream_ends_whole_before_the_engine_is_let_go(note, answer):
    engine = FakeEngine(hold=asyncio.Event())
    async with engine.running():
        node = Sidecar(engine.url, Reloader(QUICKSTART), WindowLengths(), drain_note=DrainNote(note, 60.0))
        async with serving(node.app()) as url, aiohttp.ClientSession() as client:
            ask = {"model": MODEL, "messages": [], "stream": True}
            stream = await client.post(f"{url}/v1/chat/completions", json=ask)
            note.touch()

            async def refused():
                async with client.get(f"{url}/readyz") as ready:
                    return ready.status == 503

            await until(refused)
            assert not answer.exists()
            engine.hold.set()
            assert (await stream.read()).endswith(b"data: [DONE]\n\n")
            await eventually(answer.exists)
