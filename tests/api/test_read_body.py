"""`read_body`, with bodies that come with the head and after it."""

import asyncio

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from support.serving import serving
from tempo_api.http import server
from tempo_api.http.server import make_app, read_body

LIMIT = 1000


@pytest.fixture
async def url():
    async def echo(request):
        return web.Response(body=await read_body(request, LIMIT))

    async def ready():
        return {"ready": True}

    app = make_app(
        ready=ready,
        registry=CollectorRegistry(),
        on_error=lambda *_: None,
        max_body_bytes=LIMIT,
        max_in_flight=4,
    )
    app.router.add_post("/v1/echo", echo)
    async with serving(app) as url:
        yield f"{url}/v1/echo"


async def in_pieces(*pieces):
    for piece in pieces:
        await asyncio.sleep(0.01)  # so that each is a segment of its own
        yield piece


async def post(url, data, **options):
    async with aiohttp.ClientSession() as session, session.post(url, data=data, **options) as answer:
        return answer.status, await answer.read()


@pytest.mark.parametrize("size", [0, 1, LIMIT])
async def test_a_body_is_read_whole(url, size):
    assert await post(url, b"x" * size) == (200, b"x" * size)


async def test_a_body_that_comes_after_the_head_is_read_to_its_end(url):
    assert await post(url, in_pieces(b"a" * 400, b"b" * 400)) == (200, b"a" * 400 + b"b" * 400)


async def test_a_body_beyond_the_limit_is_refused_however_it_comes(url):
    for body in (b"x" * (LIMIT + 1), in_pieces(b"x" * 600, b"x" * 600)):
        status, answer = await post(url, body)
        assert status == 413
        assert f"larger than {LIMIT} bytes" in answer.decode()


async def test_a_body_that_is_not_encoded_as_it_says_is_the_caller_s_fault(url):
    status, answer = await post(url, b"no gzip", headers={"content-encoding": "gzip"})
    assert status == 400
    assert b"content-encoding" in answer


async def test_a_body_that_does_not_come_is_not_waited_for_without_end(url, monkeypatch):
    monkeypatch.setattr(server, "BODY_TIMEOUT_S", 0.05)
    never = asyncio.Event()

    async def begun():
        yield b"x"
        await never.wait()

    status, answer = await post(url, begun())
    assert status == 499
    assert b"did not arrive within 0.05 s" in answer
