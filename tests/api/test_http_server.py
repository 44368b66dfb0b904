import asyncio
import json

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from support.serving import eventually, serving
from tempo_api.http.server import LIFECYCLE, drain, make_app
from tempo_api.openai import APIError, Ending


class FakeService:
    """An app with a handler for each thing that can go wrong."""

    def __init__(self, **options):
        self.errors = []
        self.is_ready = True
        self.release = asyncio.Event()
        registry = CollectorRegistry()
        Counter("fake_things", "Things", registry=registry).inc(3)
        options = {"max_body_bytes": 1000, "max_in_flight": 4} | options
        self.app = make_app(
            ready=self._ready,
            registry=registry,
            on_error=lambda _, ending: self.errors.append(ending),
            **options,
        )
        self.app.router.add_post("/v1/echo", self._echo)
        self.app.router.add_get("/v1/slow", self._slow)
        self.app.router.add_get("/v1/bug", self._bug)
        self.app.router.add_get("/v1/refused", self._refused)

    async def _ready(self):
        return {"ready": self.is_ready, "depth": 2}

    async def _echo(self, request):
        return web.Response(body=await request.read())

    async def _slow(self, _):
        await self.release.wait()
        return web.Response(text="done")

    async def _bug(self, _):
        raise KeyError("secret detail")

    async def _refused(self, _):
        raise APIError(Ending.NO_REPLICA, "No replica.", retry_after_s=3)


async def fetch(client, url, method="GET", **options):
    async with client.request(method, url, **options) as answer:
        body = await answer.read()
        return answer.status, answer.headers, json.loads(body) if body.startswith(b"{") else body.decode()


@pytest.mark.parametrize(
    ("method", "path", "ending"),
    [
        ("GET", "/v1/nowhere", Ending.UNKNOWN_PATH),
        ("GET", "/v1/echo", Ending.METHOD_NOT_ALLOWED),
        ("POST", "/v1/echo", Ending.BODY_TOO_LARGE),
        ("GET", "/v1/refused", Ending.NO_REPLICA),
        ("GET", "/v1/bug", Ending.INTERNAL),
    ],
)
async def test_every_error_has_openais_shape_and_is_told(method, path, ending):
    service = FakeService()
    async with serving(service.app) as url, aiohttp.ClientSession() as client:
        status, headers, body = await fetch(client, url + path, method, data=b"x" * 1001 if method == "POST" else None)
    assert status == ending.status
    assert (body["error"]["type"], body["error"]["code"]) == (ending.type, ending.code)
    assert "secret" not in body["error"]["message"]
    assert headers.get("x-tempo-dropped-reason") == ending.dropped
    assert headers.get("Retry-After") == ("3" if ending is Ending.NO_REPLICA else None)
    assert service.errors == [ending]


async def test_probes_and_metrics_answer():
    service = FakeService()
    async with serving(service.app) as url, aiohttp.ClientSession() as client:
        assert (await fetch(client, f"{url}/healthz"))[0] == 200
        assert (await fetch(client, f"{url}/readyz"))[2] == {"ready": True, "depth": 2}
        assert "fake_things_total 3.0" in (await fetch(client, f"{url}/metrics"))[2]
        service.is_ready = False
        assert (await fetch(client, f"{url}/readyz"))[0] == 503


async def test_a_full_server_refuses_and_still_answers_probes():
    service = FakeService(max_in_flight=1)
    async with serving(service.app) as url, aiohttp.ClientSession() as client:
        first = asyncio.create_task(fetch(client, f"{url}/v1/slow"))
        await eventually(lambda: service.app[LIFECYCLE].in_flight == 1)
        assert (await fetch(client, f"{url}/v1/slow"))[0] == 429
        assert (await fetch(client, f"{url}/readyz"))[0] == 200
        service.release.set()
        assert (await first)[0] == 200
        assert service.app[LIFECYCLE].in_flight == 0


async def test_draining_finishes_what_runs_and_refuses_what_comes():
    service = FakeService()
    async with serving(service.app) as url, aiohttp.ClientSession() as client:
        running = asyncio.create_task(fetch(client, f"{url}/v1/slow"))
        lifecycle = service.app[LIFECYCLE]
        await eventually(lambda: lifecycle.in_flight == 1)
        draining = asyncio.create_task(drain(lifecycle, 30.0, asyncio.Queue()))
        await eventually(lambda: lifecycle.draining)
        status, headers, body = await fetch(client, f"{url}/v1/slow")
        assert (status, headers["Connection"], body["error"]["code"]) == (503, "close", "service_unavailable")
        assert headers["x-tempo-dropped-reason"] == "rejected-shutting-down"
        assert (await fetch(client, f"{url}/readyz"))[0] == 503
        assert (await fetch(client, f"{url}/healthz"))[0] == 200
        assert not draining.done()
        service.release.set()
        assert (await running)[2] == "done"
        async with asyncio.timeout(5):
            await draining


async def test_a_drain_ends_when_its_time_is_over_or_when_hurried():
    lifecycle = FakeService().app[LIFECYCLE]
    lifecycle.enter()
    hurry = asyncio.Queue()
    async with asyncio.timeout(5):
        await drain(lifecycle, 0.01, hurry)
        hurry.put_nowait(None)
        await drain(lifecycle, 60.0, hurry)
    assert lifecycle.in_flight == 1
