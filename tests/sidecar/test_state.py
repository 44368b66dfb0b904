"""`GET /engine/state`: what the sidecar pushes to routers, and when."""

import asyncio
import json
import time
from contextlib import asynccontextmanager

import aiohttp

from support.fake_engine import MODEL, FakeEngine
from support.processes import until
from support.serving import QUICKSTART, serving
from tempo_api.http.server import LIFECYCLE
from tempo_api.reload import Reloader
from tempo_api.state import HEARTBEAT_S, STATE_PATH, STATE_TYPE, decode_state
from tempo_core.steptime import StepTime
from tempo_sidecar import state as module
from tempo_sidecar.lengths import WindowLengths
from tempo_sidecar.proxy import Sidecar

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hello there."}], "stream": True}
STEP = {"base_s": 0.01, "per_sequence_s": 1e-4, "per_prefill_token_s": 1e-5, "per_context_token_s": 0.0}


class Listening:
    """A sidecar before a FakeEngine, and somebody who listens to it."""

    def __init__(self, engine, app, url, client, content):
        self.engine, self.app, self.url, self.client, self._content = engine, app, url, client, content

    async def line(self):
        return decode_state(await asyncio.wait_for(self._content.readline(), 5.0))

    async def until(self, told):
        """The first line of which this is true."""
        while not told(state := await self.line()):
            pass
        return state

    async def ask(self):
        async with self.client.post(f"{self.url}/v1/chat/completions", json=ASK) as answer:
            return await answer.read()


@asynccontextmanager
async def listening(engine=None, **options):
    engine = engine or FakeEngine()
    async with engine.running():
        app = Sidecar(engine.url, Reloader(QUICKSTART), WindowLengths(), **options).app()
        async with serving(app) as url, aiohttp.ClientSession() as client, client.get(url + STATE_PATH) as answer:
            assert (answer.status, answer.content_type) == (200, STATE_TYPE)
            yield Listening(engine, app, url, client, answer.content)


async def test_readiness_is_told_as_soon_as_the_engine_has_said_so():
    async with listening() as sidecar:
        state = await sidecar.until(lambda state: state.ready)
        assert (state.in_flight, state.places, state.step_time) == (0, 0, None)


async def test_an_idle_sidecar_says_every_quarter_of_a_second_that_it_lives():
    async with listening() as sidecar:
        first = await sidecar.until(lambda state: state.ready)
        began_s = time.monotonic()
        assert [(await sidecar.line()).seq for _ in range(3)] == [first.seq + 1, first.seq + 2, first.seq + 3]
        assert time.monotonic() - began_s > 2 * HEARTBEAT_S


async def test_requests_are_told_when_they_come_and_when_they_go():
    async with listening(FakeEngine(hold=asyncio.Event())) as sidecar:
        await sidecar.until(lambda state: state.ready and state.in_flight == 0)
        asking = [asyncio.ensure_future(sidecar.ask()) for _ in range(3)]
        await sidecar.until(lambda state: (state.in_flight, state.running) == (3, 3))
        sidecar.engine.hold.set()
        await sidecar.until(lambda state: (state.in_flight, state.running) == (0, 0))
        await asyncio.gather(*asking)


async def test_listening_is_not_a_request_and_is_allowed_where_no_request_is():
    async with listening(max_in_flight=1, engine=FakeEngine(hold=asyncio.Event())) as sidecar:
        asking = asyncio.ensure_future(sidecar.ask())
        await sidecar.until(lambda state: state.in_flight == 1)
        async with sidecar.client.get(sidecar.url + STATE_PATH) as another:
            assert another.status == 200
        sidecar.engine.hold.set()
        await asking


async def test_who_drains_is_not_ready_and_says_why():
    async with listening() as sidecar:
        await sidecar.until(lambda state: state.ready)
        sidecar.app[LIFECYCLE].draining = True
        state = await sidecar.until(lambda state: not state.ready)
        assert state.draining


async def test_a_sick_engine_is_told():
    async with listening() as sidecar:
        await sidecar.until(lambda state: state.ready)
        sidecar.engine.healthy = False
        state = await sidecar.until(lambda state: not state.ready)
        assert not state.draining


async def test_what_the_scheduler_in_the_engine_says_is_told_at_once(tmp_path):
    status = {
        "state": "active",
        "policy": "tempo",
        "running": 3,
        "waiting": 2,
        "places": 8,
        "cache_used": 0.25,
        "steps": 1,
    }
    path = tmp_path / "status.json"
    async with listening(plugin_status=path) as sidecar:
        assert (await sidecar.until(lambda state: state.ready)).places == 0
        path.write_text(json.dumps({**status, "step_time": STEP, "written_s": time.time()}))
        state = await sidecar.until(lambda state: state.places == 8)
        assert (state.running, state.waiting, state.cache_used) == (3, 2, 0.25)
        assert (state.step_time, state.ranks) == (StepTime(**STEP), True)
        path.write_text(json.dumps({**status, "state": "fallback", "waiting": 0, "written_s": time.time()}))
        assert not (await sidecar.until(lambda state: state.waiting == 0)).ranks
        path.unlink()
        await sidecar.until(lambda state: state.places == 0)


async def test_an_engine_that_hangs_is_not_ready_although_it_says_that_it_is_well(tmp_path, monkeypatch):
    monkeypatch.setattr("tempo_sidecar.plugin.STALLED_S", 0.2)
    path = tmp_path / "status.json"
    async with listening(plugin_status=path) as sidecar:
        await sidecar.until(lambda state: state.ready)
        status = {"state": "active", "running": 1, "steps": 5, "written_s": time.time()}
        path.write_text(json.dumps(status))
        await sidecar.until(lambda state: not state.ready)
        async with sidecar.client.get(f"{sidecar.url}/readyz") as answer:
            assert (answer.status, (await answer.json())["stalled"]) == (503, True)
        path.write_text(json.dumps(status | {"steps": 6}))
        await sidecar.until(lambda state: state.ready)


async def test_a_sidecar_that_shuts_down_ends_its_streams():
    async with listening() as sidecar:
        await sidecar.line()
        await sidecar.app.shutdown()
        async with asyncio.timeout(5.0):
            while await sidecar._content.readline():
                pass


async def test_too_many_listeners_are_refused_until_one_hangs_up(monkeypatch):
    monkeypatch.setattr(module, "_MOST_LISTENERS", 2)
    async with listening() as sidecar:

        async def status():
            async with sidecar.client.get(sidecar.url + STATE_PATH) as answer:
                return answer.status

        async with sidecar.client.get(sidecar.url + STATE_PATH) as second:
            assert (second.status, await status()) == (200, 429)

        async def let_in():
            return await status() == 200

        await until(let_in)
