"""A real router before replicas that are full: who is held, who goes first, who is told to come back."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf

import aiohttp
import pytest

from support.fake_engine import MODEL
from support.fake_replica import FakeReplica
from support.processes import until
from support.router_trial import QUICK
from support.serving import serving
from tempo_api.reload import Reloader
from tempo_router.app import build_app

PLACES = 2
ROOM = PLACES + 1
MANIFEST = f"""
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {{name: tool}}
spec: {{pattern: Deadline, objectives: {{ttlt: 20s}}, default: true}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {{name: urgent}}
spec: {{pattern: Latency, objectives: {{ttft: 300ms, tbt: 100ms}}, gain: {{weight: 8}}}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {{name: hasty}}
spec: {{pattern: BestEffort, overload: {{maxQueueTime: 50ms, action: Shed}}}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {{name: modest}}
spec: {{pattern: Deadline, objectives: {{ttlt: 20s}}, overload: {{maxQueueTime: 50ms, action: Degrade}}}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: TempoPool
metadata: {{name: test}}
spec:
  model: {MODEL}
  router: {{maxConcurrentRequests: 400}}
"""


class Full:
    """A router whose one replica stands still, with `ROOM` requests at it and none more let through."""

    def __init__(self, url, session, replica):
        self.url, self.session, self.replica = url, session, replica
        self.order = []

    async def ask(self, name="", slo="tool", tenant="anybody"):
        """Status and headers of an answer; `order` has the names by when they were answered."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello."}], "stream": True}
        headers = {"x-tempo-slo-class": slo, "x-llm-d-inference-fairness-id": tenant}
        async with self.session.post(f"{self.url}/v1/chat/completions", json=body, headers=headers) as answer:
            if answer.status == 200:
                self.order.append(name)
            await answer.read()
        return answer.status, answer.headers

    async def held(self):
        """How many wait, as the metrics have it."""
        async with self.session.get(f"{self.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("tempo_router_held{"))

    async def until_held(self, count):
        async def so():
            return await self.held() == count

        await until(so)


@asynccontextmanager
async def full(tmp_path):
    path = tmp_path / "pool.yaml"
    path.write_text(MANIFEST)
    async with AsyncExitStack() as stack:
        replica = await stack.enter_async_context(FakeReplica(tokens=2, pace_s=0.002, places=PLACES).running())
        url = await stack.enter_async_context(serving(build_app(Reloader(path), {"r0": replica.url}, limits=QUICK)))
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        world = Full(url, session, replica)

        async def ready():
            async with session.get(f"{url}/readyz") as answer:
                return answer.status == 200

        await until(ready)
        replica.slow = inf
        async with asyncio.TaskGroup() as group:
            for _ in range(ROOM):
                group.create_task(world.ask())
            await until(lambda: replica.in_flight == ROOM)
            yield world
            replica.slow = 1.0


@pytest.fixture
async def world(tmp_path):
    async with full(tmp_path) as world:
        yield world


async def test_a_replica_gets_no_more_than_it_has_room_for(world):
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(world.ask())
        await world.until_held(20)
        assert world.replica.in_flight == ROOM
        world.replica.slow = 1.0
    assert world.replica.served == ROOM + 20
    assert await world.held() == 0


async def test_those_who_lose_most_by_waiting_go_first_though_they_came_last(world):
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(world.ask("tool"))
        await world.until_held(5)
        for _ in range(5):
            group.create_task(world.ask("urgent", slo="urgent"))
        await world.until_held(10)
        world.replica.slow = 1.0
    line = [name for name in world.order if name]
    assert line[:5].count("urgent") >= 4


async def test_a_tenant_that_asks_a_hundred_times_as_much_does_not_push_the_others_back(world):
    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(world.ask("greedy", tenant="greedy"))
        await world.until_held(100)
        group.create_task(world.ask("modest", tenant="modest"))
        await world.until_held(101)
        world.replica.slow = 10.0  # an answer takes longer than an order lasts
        await until(lambda: "modest" in world.order)
        world.replica.slow = 1.0
    line = [name for name in world.order if name]
    assert line.index("modest") <= 3 * ROOM


async def test_where_all_can_be_in_time_a_tenant_with_long_answers_goes_before_one_with_short_ones(world):
    world.replica.slow = 1.0
    for tenant, tokens in (("wordy", 400), ("brief", 2)):
        world.replica.tokens = tokens
        for _ in range(2):
            await world.ask(tenant=tenant)
    world.replica.slow = inf
    async with asyncio.TaskGroup() as group:
        for _ in range(ROOM):
            group.create_task(world.ask())
        await until(lambda: world.replica.in_flight == ROOM)
        for count, tenant in enumerate(("brief",) * 3 + ("wordy",) * 3, 1):
            group.create_task(world.ask(tenant, tenant=tenant))
            await world.until_held(count)
        world.replica.slow = 10.0  # an answer takes longer than an order lasts
        await until(lambda: len([name for name in world.order if name]) == 6)
        world.replica.slow = 1.0
    assert [name for name in world.order if name][:3] == ["wordy"] * 3


async def test_a_class_that_sheds_is_told_when_to_come_back_and_why(world):
    status, headers = await world.ask(slo="hasty")
    assert status == 429
    assert int(headers["Retry-After"]) >= 1
    assert headers["x-tempo-dropped-reason"] == "rejected-ttl-expired"


async def test_a_class_that_degrades_is_served_and_told(world):
    async def later():
        await asyncio.sleep(0.2)  # for longer than the class may wait
        world.replica.slow = 1.0

    (status, headers), _ = await asyncio.gather(world.ask(slo="modest"), later())
    assert status == 200
    assert headers["x-tempo-degraded"] == "1"
    assert headers["x-tempo-slo-class"] == "modest"
    assert int(headers["x-tempo-queue-ms"]) >= 50


async def test_a_client_that_hangs_up_while_it_waits_leaves_no_trace(world):
    task = asyncio.ensure_future(world.ask())
    await world.until_held(1)
    task.cancel()
    await world.until_held(0)
    assert world.replica.in_flight == ROOM
