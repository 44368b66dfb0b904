import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from support.serving import eventually
from support.upstream import FakeUpstream, says
from tempo_api.http.connection import MAX_HEAD_BYTES, Connection, UpstreamError
from tempo_api.http.upstream import Connections
from tempo_api.openai import Ending

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nas long as it lasts"


async def read(connections, url, method="GET", body=b"", pieces=None):
    """Status and body of an answer; its pieces are appended to `pieces`."""
    got = [] if pieces is None else pieces

    def take(piece, _):
        got.append(piece)
        return True

    answer = await connections.send(f"{url}/base/", method, "/x?q=%2B", {"X-Mine": "1"}, body)
    try:
        await answer.body_begun()
        await answer.pour(take)
        return answer.status, b"".join(got)
    finally:
        connections.release(answer)


@asynccontextmanager
async def upstream(*scripts, **options):
    """A fake upstream, and what reads from it."""
    fake = FakeUpstream(*scripts)
    async with fake.running(), Connections(**options) as connections:
        yield fake, lambda *args, **kwargs: read(connections, fake.url, *args, **kwargs)


def bytewise(data):
    return [data[i : i + 1] for i in range(len(data))]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK, b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b""),
        (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", b""),
        (CHUNKED + b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nX-Trailer: 1\r\n\r\n", b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, b"hi"),
    ],
)
@pytest.mark.parametrize("cut", [lambda data: data, bytewise], ids=["at once", "byte by byte"])
async def test_an_answer_is_understood_however_it_is_framed_and_cut_and_its_connection_kept(answer, body, cut):
    async with upstream(says(cut(answer), OK)) as (fake, fetch):
        assert (await fetch())[1] == body
        assert await fetch() == (200, b"hi")
        assert fake.connections == 1


async def test_a_request_arrives_as_it_was_meant():
    body = bytes(range(256)) * 4096
    async with upstream(says(OK, OK)) as (fake, fetch):
        await fetch("POST", body)
        await fetch()
    (head, got), (second, _) = fake.requests
    assert got == body
    assert head.startswith(b"POST /base/x?q=%2B HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nX-Mine: 1\r\nContent-Length: 1048576\r\n" in head
    assert b"Content-Length" not in second


async def test_what_arrives_together_is_handed_on_together():
    pieces = []
    async with upstream(says(CHUNKED + b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n")) as (_, fetch):
        await fetch(pieces=pieces)
    assert pieces == [b"abc"]


async def test_a_body_without_a_length_ends_with_its_connection():
    async with upstream(says(UNTIL_CLOSE, close=True)) as (fake, fetch):
        assert await fetch() == (200, b"as long as it lasts")
        await fetch()
        assert fake.connections == 2


async def test_an_answer_to_head_has_no_body_whatever_it_says():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    async with upstream(says(head), says(head + b"a body all the same"), says(OK)) as (_, fetch):
        assert await fetch("HEAD") == (200, b"")
        assert await fetch("HEAD") == (200, b"")
        assert await fetch() == (200, b"hi")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        OK + b"more than was asked for",
        OK + OK,
    ],
)
async def test_a_connection_that_is_to_close_or_out_of_step_is_not_used_again(answer):
    async with upstream(says(answer, OK)) as (fake, fetch):
        assert await fetch() == (200, b"hi")
        assert await fetch() == (200, b"hi")
        assert fake.connections == 2


async def test_what_an_idle_connection_says_unasked_closes_it():
    async def unasked(fake, reader, writer):
        await says(OK)(fake, reader, writer) if fake.connections > 1 else None
        await fake.request(reader)
        writer.write(OK)
        await asked.wait()
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await reader.readexactly(1)

    asked = asyncio.Event()
    async with upstream(unasked) as (fake, fetch):
        await fetch()
        asked.set()
        async with asyncio.timeout(5):
            await fake.hung_up.wait()
        assert await fetch() == (200, b"hi")


async def test_an_idle_connection_is_closed_after_a_while():
    async with upstream(says(OK, OK), idle_s=0.02) as (fake, fetch):
        await fetch()
        async with asyncio.timeout(5):
            await fake.hung_up.wait()
        await fetch()
        assert fake.connections == 2


async def closes_at_the_second(fake, reader, writer):
    await fake.request(reader)
    writer.write(OK)
    await fake.request(reader)


async def test_a_request_on_a_kept_connection_that_is_just_closing_is_sent_again_once():
    async with upstream(closes_at_the_second, says(OK)) as (fake, fetch):
        await fetch()
        assert await fetch("POST", b"body") == (200, b"hi")
        assert [body for _, body in fake.requests] == [b"", b"body", b"body"]


async def test_a_request_is_not_sent_again_on_a_new_connection():
    async def closes(fake, reader, _):
        await fake.request(reader)

    async with upstream(closes) as (fake, fetch):
        with pytest.raises(UpstreamError) as raised:
            await fetch("POST", b"body")
        assert raised.value.ending is Ending.UPSTREAM_FAILED
        assert len(fake.requests) == 1


async def test_a_new_connection_that_is_closed_before_it_is_used_is_an_error():
    fake = FakeUpstream(says(close=True))
    async with fake.running():
        port = int(fake.url.rpartition(":")[2])
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
        await eventually(lambda: not connection.open)
        with pytest.raises(UpstreamError, match="before its answer was complete"):
            await connection.send(b"GET / HTTP/1.1\r\n\r\n", b"")


async def test_a_connection_on_which_the_answer_came_before_the_request_was_taken_is_not_used_again():
    async def impatient(_, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        await done.wait()

    done = asyncio.Event()
    async with upstream(impatient, says(OK)) as (fake, fetch):
        assert await fetch("POST", b"x" * (64 << 20)) == (413, b"")
        assert await fetch() == (200, b"hi")
        assert fake.connections == 2
        done.set()


async def test_a_request_is_not_sent_again_once_a_byte_came():
    async with upstream(says(OK, b"H", close=True)) as (fake, fetch):
        await fetch()
        with pytest.raises(UpstreamError):
            await fetch("POST", b"body")
        assert len(fake.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart",
        CHUNKED + b"4\r\npart\r\n",
        CHUNKED + b"4\r\npart\r\n0\r\n",
    ],
)
async def test_a_body_that_breaks_off_is_an_error_after_what_came(answer):
    pieces = []
    async with upstream(says(answer, close=True)) as (_, fetch):
        with pytest.raises(UpstreamError, match="before its answer was complete"):
            await fetch(pieces=pieces)
    assert pieces == [b"part"]


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail.example.com ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nEvil: b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_HEAD_BYTES,
        CHUNKED + b"0\r\n" + b"X: y\r\n" * MAX_HEAD_BYTES,
        CHUNKED + b"zz\r\n",
    ],
)
async def test_an_answer_that_is_malformed_or_has_no_end_of_headers_is_an_error(answer):
    async with upstream(says(answer)) as (fake, fetch):
        with pytest.raises(UpstreamError, match="is not valid HTTP"):
            await fetch()
        async with asyncio.timeout(5):
            await fake.hung_up.wait()


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\n", CHUNKED, CHUNKED + b"1\r\nx\r\n", UNTIL_CLOSE])
async def test_silence_at_any_point_is_a_timeout(before):
    async with upstream(says(before), read_timeout_s=0.05) as (fake, fetch):
        with pytest.raises(UpstreamError) as raised:
            await fetch()
        assert raised.value.ending is Ending.UPSTREAM_TIMEOUT
        await fake.hung_up.wait()


async def test_an_answer_may_take_longer_than_the_timeout_if_it_is_never_silent_for_so_long():
    slow = [CHUNKED, *[b"1\r\nx\r\n"] * 10, b"0\r\n\r\n"]
    async with upstream(says(slow, gap_s=0.05), read_timeout_s=0.4) as (_, fetch):
        assert await fetch() == (200, b"x" * 10)


async def test_an_upstream_that_is_not_there_is_told_from_one_that_fails():
    async with Connections() as connections:
        with pytest.raises(UpstreamError, match="can't be reached"):
            await connections.send("http://127.0.0.1:1", "GET", "/", {}, b"")


async def test_an_upstream_that_accepts_nothing_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first, socket.socket() as second:
        for client in (first, second):  # as many as fit; what comes next gets no answer
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        async with Connections(connect_timeout_s=0.05) as connections:
            with pytest.raises(UpstreamError, match="can't be reached"):
                await connections.send(f"http://127.0.0.1:{full.getsockname()[1]}", "GET", "/", {}, b"")


@pytest.mark.parametrize("answer", [b"", CHUNKED, CHUNKED + b"1\r\nx\r\n"])
async def test_cancelling_closes_the_connection_at_once(answer):
    async with upstream(says(answer)) as (fake, fetch):
        call = asyncio.create_task(fetch())
        await eventually(lambda: fake.requests)
        call.cancel()
        async with asyncio.timeout(5):
            await fake.hung_up.wait()


@pytest.mark.parametrize("answer", [b"", CHUNKED + b"1\r\nx\r\n", UNTIL_CLOSE])
async def test_what_an_upstream_that_is_given_up_had_not_finished_is_an_error(answer):
    fake = FakeUpstream(says(answer))
    async with fake.running(), Connections() as connections:
        call = asyncio.create_task(read(connections, fake.url))
        await eventually(lambda: fake.requests)
        connections.lost(f"{fake.url}/base")
        with pytest.raises(UpstreamError, match="can't be reached any more"):
            await call


async def test_an_upstream_is_not_read_while_the_taker_has_enough():
    total, sent = 32 << 20, 0

    async def torrent(fake, reader, writer):
        nonlocal sent
        await fake.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()
        await reader.readexactly(1)

    fake, got = FakeUpstream(torrent), 0
    async with fake.running(), Connections() as connections:
        answer = await connections.send(fake.url, "GET", "/", {}, b"")

        def take(piece, _):
            nonlocal got
            got += len(piece)
            return False

        assert not await answer.pour(take)
        before = -1
        while before != sent:  # until the sockets' buffers are full
            before = sent
            await asyncio.sleep(0.05)  # one that still had room would have sent more by then
        assert sent < total
        while not await answer.pour(take):
            pass
        connections.release(answer)
    assert got == total


async def test_a_connection_that_waits_for_its_taker_does_not_time_out():
    fake = FakeUpstream(says([CHUNKED + b"1\r\nx\r\n", b"0\r\n\r\n"], gap_s=0.01))
    async with fake.running(), Connections(read_timeout_s=0.02) as connections:
        answer = await connections.send(fake.url, "GET", "/", {}, b"")
        assert not await answer.pour(lambda *_: False)
        await asyncio.sleep(0.1)  # several times the timeout, in which nothing is read
        assert await answer.pour(lambda *_: True)
        connections.release(answer)
