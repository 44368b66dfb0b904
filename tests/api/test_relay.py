import asyncio
import gzip
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from support.serving import eventually, serving
from support.upstream import FakeUpstream, says
from tempo_api.http import relay as relay_module
from tempo_api.http.relay import Connections, UpstreamError, forwarded_headers, relay
from tempo_api.openai import Ending

SSE = {"Content-Type": "text/event-stream"}


class FakeTap:
    def __init__(self):
        self.head = None
        self.seen = b""

    def begin(self, status, content_type):
        self.head = (status, content_type)

    def feed(self, chunk):
        self.seen += chunk
        return chunk.upper()

    def close(self):
        return b"!"


class Proxy:
    """`relay` in an app, in front of an upstream handler."""

    def __init__(self, **options):
        self.options = options
        self.endings = []

    async def handle(self, request):
        headers = forwarded_headers(request.headers)
        body = await request.read()
        try:
            relayed = await relay(request, self.connections, self.base, body=body, headers=headers, **self.options)
        except UpstreamError as error:
            self.endings.append(error.ending)
            return web.Response(status=error.ending.status, text=f"{error.status}: {error.message}")
        except asyncio.CancelledError:
            self.endings.append(Ending.CLIENT_CLOSED)
            raise
        self.endings.append(relayed.ending)
        return relayed.response


@asynccontextmanager
async def proxied(handler, *, read_timeout_s=5.0, proxy=None, **options):
    proxy, front, back = proxy or Proxy(**options), web.Application(), web.Application()
    back.router.add_route("*", "/{path:.*}", handler)
    front.router.add_route("*", "/{path:.*}", proxy.handle)
    async with (
        serving(back) as proxy.base,
        serving(front) as url,
        Connections(read_timeout_s=read_timeout_s) as proxy.connections,
        aiohttp.ClientSession(auto_decompress=False) as client,
    ):
        yield proxy, client, f"{url}/v1/x?q=%2B"


@asynccontextmanager
async def raw_client(upstream, **options):
    """A proxy in front of a fake upstream; and a connection to it, for who wants to see or send single bytes."""
    proxy, front = Proxy(**options), web.Application()
    front.router.add_route("*", "/{path:.*}", proxy.handle)
    async with upstream.running(), serving(front) as url, Connections() as proxy.connections:
        proxy.base = upstream.url
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(url).port)
        try:
            yield proxy, reader, writer
        finally:
            writer.close()


def torrent(total):
    """A script: an answer of that many bytes, as fast as it is taken."""

    async def script(upstream, reader, writer):
        await upstream.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        for _ in range(total >> 16):
            writer.write(b"x" * (1 << 16))
            await writer.drain()
        await reader.readexactly(1)

    return script


async def start(request, headers=SSE, **options):
    response = web.StreamResponse(headers=headers, **options)
    await response.prepare(request)
    return response


async def test_an_answer_passes_with_status_headers_and_bytes():
    async def upstream(request):
        assert (request.method, request.rel_url.raw_path_qs, await request.read()) == ("PUT", "/v1/x?q=%2B", b"body")
        assert request.headers["x-mine"] == "1"
        assert "x-hop" not in request.headers
        assert "Accept-Encoding" not in request.headers
        headers = {"Content-Encoding": "gzip", "x-theirs": "2", "Keep-Alive": "timeout=9"}
        return web.Response(status=418, reason="Short", body=gzip.compress(b"tea"), headers=headers)

    async with proxied(upstream, answer_headers={"x-ours": "3"}) as (proxy, client, url):
        headers = {"x-mine": "1", "Connection": "x-hop", "x-hop": "1"}
        async with client.put(url, data=b"body", headers=headers) as answer:
            assert (answer.status, answer.reason, gzip.decompress(await answer.read())) == (418, "Short", b"tea")
            assert (answer.headers["x-theirs"], answer.headers["x-ours"]) == ("2", "3")
            assert "Keep-Alive" not in answer.headers
    assert proxy.endings == [Ending.UPSTREAM_REFUSED]


async def test_chunks_arrive_as_they_are_sent():
    arrived = asyncio.Event()

    async def upstream(request):
        response = await start(request)
        await response.write(b"one")
        await arrived.wait()
        await response.write(b"two")
        return response

    async with proxied(upstream) as (_, client, url), client.get(url) as answer:
        assert await answer.content.readany() == b"one"
        arrived.set()
        assert await answer.content.read() == b"two"


async def test_a_tap_sees_the_answer_and_may_change_it():
    async def upstream(request):
        return web.Response(body=b"data: x\n\n", headers=SSE)

    tap = FakeTap()
    async with proxied(upstream, tap=tap) as (_, client, url), client.get(url) as answer:
        assert await answer.read() == b"DATA: X\n\n!"
    assert (tap.head, tap.seen) == ((200, "text/event-stream"), b"data: x\n\n")


@pytest.mark.parametrize("head_first", [True, False])
async def test_a_failure_before_the_first_byte_can_be_retried_elsewhere(head_first):
    async def upstream(request):
        if head_first:
            await start(request)
        request.transport.abort()
        return web.Response()

    async with proxied(upstream) as (proxy, client, url), client.post(url) as answer:
        assert answer.status == 502
    assert proxy.endings == [Ending.UPSTREAM_FAILED]


async def test_a_status_that_the_caller_refuses_is_a_failure():
    async def upstream(_):
        return web.Response(status=503)

    async with (
        proxied(upstream, refuse=lambda status: status == 503) as (proxy, client, url),
        client.post(url) as answer,
    ):
        assert (await answer.text()).startswith("503: ")
    assert proxy.endings == [Ending.UPSTREAM_FAILED]


async def test_an_upstream_that_is_silent_for_too_long_is_a_timeout():
    async def upstream(_):
        await asyncio.sleep(60)  # silent for longer than anybody waits; cancelled as the client leaves

    async with proxied(upstream, read_timeout_s=0.05) as (proxy, client, url), client.post(url) as answer:
        assert answer.status == 504
    assert proxy.endings == [Ending.UPSTREAM_TIMEOUT]


async def test_a_broken_stream_ends_with_an_error_event():
    async def upstream(request):
        response = await start(request)
        await response.write(b"data: 1\n\n")
        request.transport.abort()
        return response

    async with proxied(upstream) as (proxy, client, url), client.get(url) as answer:
        first, error, done, rest = (await answer.read()).split(b"\n\n")
    assert (first, done, rest) == (b"data: 1", b"data: [DONE]", b"")
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "upstream_failed"
    assert proxy.endings == [Ending.UPSTREAM_FAILED]


async def test_a_broken_answer_of_another_kind_ends_the_connection_so_that_nobody_takes_it_for_whole():
    async def upstream(request):
        response = await start(request, {"Content-Length": "100"})
        await response.write(b"partial")
        request.transport.abort()
        return response

    async with proxied(upstream) as (proxy, client, url), client.get(url) as answer:
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
    assert proxy.endings == [Ending.UPSTREAM_FAILED]


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_client_that_hangs_up_closes_the_upstreams_connection(streaming):
    reached, gone = asyncio.Event(), asyncio.Event()

    async def upstream(request):
        if streaming:
            response = await start(request)
            await response.write(b"data: 1\n\n")
        reached.set()
        try:
            await asyncio.sleep(60)  # until it is cancelled, which is what is tested
        finally:
            gone.set()

    async with proxied(upstream) as (proxy, client, url):
        call = asyncio.create_task(client.get(url))
        async with asyncio.timeout(5):
            await reached.wait()
            if streaming:
                (await call).close()
            call.cancel()
            await gone.wait()
        await eventually(lambda: proxy.endings)
    assert proxy.endings == [Ending.CLIENT_CLOSED]


async def test_an_answer_without_a_body_passes():
    async def upstream(_):
        return web.Response(status=204)

    async with proxied(upstream) as (proxy, client, url), client.head(url) as answer:
        assert answer.status == 204
    assert proxy.endings == [Ending.COMPLETED]


@pytest.mark.parametrize(
    ("asked", "answer", "got"),
    [
        (  # no length: the client is told by chunks
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"HTTP/1.1 200 Fine\r\nX-A: 1\r\nX-Hop: 1\r\nConnection: close, x-hop\r\n\r\nall",
            b"HTTP/1.1 200 Fine\r\nx-a: 1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n\r\n",
        ),
        (  # a client that knows no chunks: by the end of its connection
            b"GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall",
        ),
        (  # a stream of events may be changed or broken off, so its length is not told
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 4\r\n\r\nab\n\n",
            (
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
                b"connection: close\r\n\r\n4\r\nab\n\n\r\n0\r\n\r\n"
            ),
        ),
        (  # what belongs to no body
            b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n",
        ),
    ],
)
async def test_the_client_is_told_where_an_answer_ends_in_the_way_it_understands(asked, answer, got):
    async with raw_client(FakeUpstream(says(answer, close=True))) as (proxy, reader, writer):
        writer.write(asked)
        assert await reader.readexactly(len(got)) == got
        if b"connection: close" in got:
            assert await reader.read() == b""
    assert proxy.endings == [Ending.COMPLETED]


async def test_a_client_may_use_its_connection_again():
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    async with raw_client(FakeUpstream(says(ok, ok, ok))) as (_, reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        assert await reader.readexactly(3 * len(ok)) == ok.replace(b"Content-Length", b"content-length") * 3


async def test_an_answer_is_not_read_faster_than_its_client_takes_it():
    total = 64 << 20
    upstream = FakeUpstream(torrent(total))
    async with raw_client(upstream) as (proxy, reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.2)  # the fastest would have sent all of it by now
        assert not proxy.endings
        got = 0
        while got < total:
            got += len(await reader.read(1 << 20))
        await eventually(lambda: proxy.endings)
    assert proxy.endings == [Ending.COMPLETED]


async def test_a_client_that_takes_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(relay_module, "_STALL_S", 0.05)
    upstream = FakeUpstream(torrent(64 << 20))
    async with raw_client(upstream) as (proxy, _, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(5):
            await upstream.hung_up.wait()
        await eventually(lambda: proxy.endings)
    assert proxy.endings == [Ending.CLIENT_CLOSED]


async def test_a_client_that_leaves_while_it_is_waited_for_closes_the_upstreams_connection():
    upstream = FakeUpstream(torrent(64 << 20))
    async with raw_client(upstream) as (proxy, reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        async with asyncio.timeout(5):
            await upstream.hung_up.wait()
        await eventually(lambda: proxy.endings)
    assert proxy.endings == [Ending.CLIENT_CLOSED]


async def test_a_tap_may_hold_the_first_pieces_back():
    class Holding(FakeTap):
        def feed(self, chunk):
            self.seen += chunk
            return b""

        def close(self):
            return self.seen

    async def upstream(request):
        response = await start(request)
        await response.write(b"one ")
        await response.write(b"two")
        return response

    async with proxied(upstream, tap=Holding()) as (_, client, url), client.get(url) as answer:
        assert await answer.read() == b"one two"


async def test_what_the_proxy_sets_can_be_read_from_the_response_that_is_handed_back():
    async def upstream(_):
        return web.Response(status=201, headers={"X-Theirs": "1"})

    class Seeing(Proxy):
        async def handle(self, request):
            self.response = await super().handle(request)
            return self.response

    async with proxied(upstream, proxy=Seeing(answer_headers={"x-ours": "2"})) as (proxy, client, url):
        await client.get(url)
    assert (proxy.response.status, dict(proxy.response.headers), proxy.response.prepared) == (
        201,
        {"x-ours": "2"},
        True,
    )
