"""The load generator and the backend, against each other and against servers that misbehave."""

import asyncio
import socket
from contextlib import asynccontextmanager

import orjson
import pytest

from tempo_api.state import STATE_PATH, decode_state
from tempo_bench.routers import lag, load
from tempo_bench.routers.backend import Answers, Backend, parse_tag, stream_tag
from tempo_bench.routers.load import connections, send
from tempo_bench.routers.requests import Requests, Shape
from tempo_bench.routers.wire import content_length, http_chunk, problem


@asynccontextmanager
async def serving(factory):
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def backend():
    return serving(lambda: Backend(Answers("m")))


def fake_server(answer):
    """A server that says `answer` to whatever it gets, and hangs up where that is empty."""

    class FakeServer(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(answer) if answer else self.transport.close()

    return serving(FakeServer)


async def exchange(port, request):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = content_length(head)
    body = await (reader.readexactly(length) if length is not None else reader.readuntil(b"\n\r\n"))
    writer.close()
    await writer.wait_closed()
    return head, body


def post(path, body):
    return b"POST %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (path, len(body), body)


def test_a_streams_tag_says_how_many_chunks_and_how_far_apart():
    assert parse_tag(stream_tag(100, 20).encode()) == (100, 0.02)
    assert parse_tag(b"hello") is None


@pytest.mark.parametrize("shape", [Shape(), Shape(100_000), Shape(300, 100, 20)])
def test_requests_are_of_the_size_asked_for_and_differ_only_at_the_prompts_end(shape):
    requests = Requests(shape, "m")
    first, second = requests.next(), requests.next()
    head, _, body = first.partition(b"\r\n\r\n")
    assert content_length(head) == len(body)
    asked = orjson.loads(body)
    prompt = asked["messages"][0]["content"]
    assert len(prompt) == shape.prompt_bytes
    assert asked["stream"] is bool(shape.chunks)
    assert parse_tag(body) == ((shape.chunks, shape.gap_ms / 1e3) if shape.chunks else None)
    assert first != second
    assert first.replace(b"#00000001", b"#00000002") == second


@pytest.mark.parametrize(
    ("status", "body", "chunks", "found"),
    [
        (200, b'{"content": " word"}', 0, None),
        (500, b"oh", 0, "status 500"),
        (200, b"{}", 0, "no text"),
        (200, b"data: word\n\n" * 3 + b"data: [DONE]\n\n", 3, None),
        (200, b"data: word\n\n" * 2 + b"data: [DONE]\n\n", 3, "cut short"),
        (200, b"data: word\n\n" * 9, 3, "cut short"),
    ],
)
def test_answers_are_checked(status, body, chunks, found):
    assert problem(status, body, b"word", chunks) == found


async def test_whole_answers_and_streams_are_counted_and_timed():
    async with backend() as port, connections(port, 4) as opened:
        whole = await send(opened, Requests(Shape(), "m"), 10.0, most=21)
        assert (len(whole.latencies_s), whole.errors) == (21, {})
        streams = await send(opened, Requests(Shape(chunks=5, gap_ms=4), "m"), 10.0, most=4)
    assert (len(streams.firsts_s), streams.errors) == (4, {})
    assert min(streams.latencies_s) >= 0.016
    assert max(streams.firsts_s) < min(streams.latencies_s)


async def test_a_turn_ends_when_its_time_is_over_and_what_is_in_flight_is_followed():
    async with backend() as port, connections(port, 2) as opened:
        tally = await send(opened, Requests(Shape(chunks=10, gap_ms=5), "m"), 0.01)
    assert (len(tally.latencies_s), tally.errors) == (2, {})


async def test_connections_can_start_one_after_the_other():
    async with backend() as port, connections(port, 5) as opened:
        tally = await send(opened, Requests(Shape(), "m"), 10.0, most=5, ramp_s=0.05)
    assert len(tally.latencies_s) == 5
    assert tally.elapsed_s >= 0.05


async def test_an_answer_in_many_pieces_is_one_answer():
    body = b"".join(http_chunk(b"data: word\n\n") for _ in range(3)) + http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body

    class FakeTrickle(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            for at in range(len(answer)):
                asyncio.get_running_loop().call_later(1e-4 * at, self.transport.write, answer[at : at + 1])

    async with serving(FakeTrickle) as port, connections(port, 1) as opened:
        tally = await send(opened, Requests(Shape(chunks=3), "m"), 10.0, most=1)
    assert (len(tally.latencies_s), tally.errors) == (1, {})


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno", "status 503"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "no text"),
        (b"", "connection lost"),
    ],
)
async def test_what_goes_wrong_is_counted_by_what_it_was(answer, error):
    async with fake_server(answer) as port, connections(port, 1) as opened:
        tally = await send(opened, Requests(Shape(), "m"), 10.0, most=1)
    assert (tally.latencies_s, tally.errors) == ([], {error: 1})


async def test_an_answer_that_never_ends_is_waited_for_no_longer_than_agreed(monkeypatch):
    monkeypatch.setattr(load, "_PATIENCE_S", 0.05)
    endless = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nword"
    async with fake_server(endless) as port, connections(port, 3) as opened:
        tally = await send(opened, Requests(Shape(), "m"), 0.01)
    assert tally.errors == {"no answer in time": 3}


async def test_nobody_there_is_an_error_not_a_wait():
    async with backend() as port:
        pass
    with pytest.raises(ConnectionRefusedError):
        async with connections(port, 1):
            pass


def test_a_server_that_stops_answering_is_as_late_as_was_waited(monkeypatch):
    monkeypatch.setattr(lag, "_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert lag.measure(silent.getsockname()[1], 10.0) == [0.05]


async def test_the_backend_answers_what_routers_ask_besides():
    async with backend() as port:
        _, models = await exchange(port, b"GET /v1/models HTTP/1.1\r\n\r\n")
        _, ready = await exchange(port, b"GET /readyz HTTP/1.1\r\n\r\n")
        _, rendered = await exchange(port, post(b"/v1/chat/completions/render", b'{"messages": "abcd"}'))
        refused, _ = await exchange(port, b"POST /v1/chat/completions HTTP/1.1\r\n\r\n")
        _, state = await exchange(port, b"GET %s HTTP/1.1\r\n\r\n" % STATE_PATH.encode())
    assert orjson.loads(models)["data"][0]["id"] == "m"
    assert orjson.loads(ready)["ready"] is True
    assert len(orjson.loads(rendered)["token_ids"]) == 5
    assert refused.startswith(b"HTTP/1.1 411 ")
    assert decode_state(state.split(b"\r\n")[1]).ready
