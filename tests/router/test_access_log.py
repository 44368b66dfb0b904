"""The access log: what a line says, and what it never does."""

import asyncio
import json
import logging
import os
import threading
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.access import guarded, write_keys
from support.fake_engine import MODEL, FakeEngine
from support.serving import eventually
from tempo_api.openai import Ending
from tempo_core.gain import Outcome
from tempo_router.access import AccessLog, Entry, Gate, Lines
from tempo_router.access.lines import MOST_WAITING
from tempo_router.access.log import line

FIELDS = [
    "time", "id", "method", "path", "status", "class", "tenant", "replica", "queue_ms", "duration_ms", "ttft_ms",
    "tokens_in", "tokens_out", "ending",
]  # fmt: skip
KEY = "sk-5ecre7-5ecre7"


def ask(prompt="Hello there, engine."):
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}


def lines_of(path):
    return [json.loads(text) for text in path.read_text().splitlines()]


async def logged(folder, requests, **engine):
    """The log of these requests, each (path, key, body), of a router with keys."""
    keys, path = write_keys(folder / "keys.yaml", {"name": "team-a", "key": KEY}), folder / "access.log"
    path.unlink(missing_ok=True)
    async with guarded(FakeEngine(**engine), folder, Gate(keys), AccessLog(Lines(path))) as router:
        for where, key, body in requests:
            await router.ask(where, key=key, json=body)
    return lines_of(path)


async def test_a_request_is_one_line(tmp_path):
    [told] = await logged(tmp_path, [("/v1/chat/completions?x=y", KEY, ask())])
    assert list(told) == FIELDS
    assert (told["method"], told["path"], told["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (told["replica"], told["ending"]) == ("r0", "completed")
    assert 0 <= told["queue_ms"] <= told["duration_ms"] + 1
    assert abs((datetime.now(UTC) - datetime.fromisoformat(told["time"])).total_seconds()) < 60


async def test_refusals_have_lines_and_probes_have_none(tmp_path):
    requests = [("/v1/echo", None, {}), ("/nowhere", KEY, {}), ("/metrics", None, None), ("/healthz", KEY, None)]
    assert [told["status"] for told in await logged(tmp_path, requests)] == [401, 404]


async def test_a_client_that_hangs_up_has_a_line_too(tmp_path):
    engine, path = FakeEngine(hold=asyncio.Event()), tmp_path / "access.log"
    async with guarded(engine, tmp_path, AccessLog(Lines(path))) as router:
        running = asyncio.ensure_future(router.ask("/v1/chat/completions", json=ask() | {"stream": True}))
        await eventually(lambda: engine.bodies)
        running.cancel()
        await eventually(path.read_text)
    [told] = lines_of(path)
    assert (told["status"], told["ending"]) in {(499, "client_closed"), (200, "client_closed")}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["/v1/chat/completions", "/v1/completions", "/v1/echo", "/v1/echo?api_key=" + KEY, "/x"]),
            st.sampled_from([KEY, KEY + "-wrong", None]),
            st.text().map(lambda text: ask(f"PROMPT {text}") | {"prompt": f"PROMPT {text}", "user": KEY})
            | st.text().map(lambda text: f"PROMPT {text}"),
        ),
        max_size=8,
    )
)
def test_no_line_holds_a_prompt_an_answer_or_a_key(tmp_path, requests):
    told = asyncio.run(logged(tmp_path, requests))
    assert len(told) == len(requests)
    for text in map(json.dumps, told):
        assert not any(word in text for word in ("PROMPT", KEY, "w0"))


class FakeRequest:
    """As much of a request as a line tells of."""

    method = "POST"

    def __init__(self, path="/v1/x", headers=None):
        self.path, self.headers = path, headers or {}


def test_a_line_tells_what_the_handlers_know():
    outcome = Outcome("chat", 7, 5, ttft_s=0.25, tbt_s=0.01, ttlt_s=0.3, gain=17.0, attained=True)
    entry = Entry("abc", "team-a", "chat", Ending.UPSTREAM_FAILED, outcome)
    told = json.loads(line(datetime(2026, 1, 2, tzinfo=UTC), 0.3, FakeRequest(), None, entry))
    assert told == {
        "time": "2026-01-02T00:00:00Z", "id": "abc", "method": "POST", "path": "/v1/x", "status": 499,
        "class": "chat", "tenant": "team-a", "replica": None, "queue_ms": None, "duration_ms": 300.0,
        "ttft_ms": 250.0, "tokens_in": 7, "tokens_out": 5, "ending": "upstream_failed",
    }  # fmt: skip


@given(st.text(st.characters()), st.text(st.characters()))
def test_whatever_a_client_calls_its_request_is_one_line_of_json(path, id_):
    made = line(datetime.now(UTC), 0.0, FakeRequest(path, {"x-request-id": id_}), None, Entry())
    assert b"\n" not in made
    assert list(json.loads(made)) == FIELDS
    assert len(made) < 5000


def test_lines_are_written_in_order_and_the_last_ones_at_the_end(tmp_path):
    lines = Lines(tmp_path / "log")
    lines.start()
    for n in range(1000):
        lines.put(b"%d" % n)
    lines.close()
    assert (tmp_path / "log").read_text() == "".join(f"{n}\n" for n in range(1000))


async def test_a_file_that_is_rotated_away_is_begun_anew(tmp_path):
    path = tmp_path / "log"
    lines = Lines(path)
    lines.start()
    lines.put(b"1")
    await eventually(path.read_text)
    path.rename(tmp_path / "log.1")
    lines.put(b"2")
    lines.close()
    assert ((tmp_path / "log.1").read_text(), path.read_text()) == ("1\n", "2\n")


def test_a_reader_that_does_not_read_stops_nobody_and_what_is_dropped_is_counted(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    drain = os.open(pipe, os.O_RDWR)
    lines = Lines(pipe)
    for n in range(MOST_WAITING + 5):
        lines.put(b"%d" % n)
    seen = bytearray()
    reader = threading.Thread(target=lambda: read_until(drain, seen, b'{"dropped":5}\n'))
    reader.start()
    lines.start()
    reader.join(20)
    lines.close()
    os.close(drain)
    assert seen.endswith(b'\n{"dropped":5}\n')


def read_until(descriptor, seen, end):
    while not seen.endswith(end):
        seen += os.read(descriptor, 65536)


def test_a_log_that_can_t_be_written_is_told_once_and_stops_nothing(tmp_path, caplog):
    folder = tmp_path / "folder"
    folder.mkdir()
    lines = Lines(folder / "log")
    (folder / "log").unlink()
    folder.rmdir()
    with caplog.at_level(logging.ERROR):
        lines.start()
        lines.put(b"1")
        lines.close()
    assert [record.getMessage() for record in caplog.records] == [
        "the access log can't be written: No such file or directory; its lines are lost until it can"
    ]
