"""Two routers of one pool that share their tenants through a real Redis, and what becomes of them when it dies."""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from math import inf
from pathlib import Path

import aiohttp
import pytest
import yaml

from support.fake_engine import MODEL
from support.fake_replica import FakeReplica
from support.k8s.samples import a_pool, chat_class
from support.processes import until
from support.redis import need_redis, redis_server
from support.serving import serving
from tempo_api.reload import Reloader
from tempo_router.app import build_app
from tempo_router.tenants import open_totals

need_redis()

from redis.asyncio import Redis  # noqa: E402  # after the skip

TENANT = "x-gateway-inference-fairness-id"
AT_ONCE = 2
"""What a router gives a replica with one place: a request for that, and one more so that it never stands empty."""
GREEDY, MODEST = 8, 4
PATIENT = {"ttft": "10m", "tbt": "1s"}
"""Nobody is late in a test, so that only arrival and shares decide."""


class Together:
    """Two routers, each with a replica of its own; the second one's can be made to stand still."""

    def __init__(self, server, session, urls, replicas):
        self.server, self.session, self.urls, self.replicas = server, session, urls, replicas

    async def ask(self, router, tenant):
        """The answer to one request."""
        asked = [{"role": "user", "content": "Hello."}]
        body = {"model": MODEL, "messages": asked, "stream": True, "max_tokens": 5}  # that much is expected of it
        url = f"{self.urls[router]}/v1/chat/completions"
        async with self.session.post(url, json=body, headers={TENANT: tenant}) as answer:
            return answer.status, await answer.read()

    async def metric(self, router, line):
        """Whether the router's metrics have this line."""
        async with self.session.get(f"{self.urls[router]}/metrics") as answer:
            return f"{line}\n" in await answer.text()

    async def shared(self, value):
        """Wait until both say whether they share."""
        for router in (0, 1):
            await until(lambda router=router: self.metric(router, f"tempo_router_tenants_shared {value}"))

    async def order(self, first=None, then=None):
        """Whose requests the second replica got in which order, of those that waited for it.

        The greedy tenant's came before the modest one's, and while they waited the former was served much at the first
        router. What is to happen first and then, happens before and after that.
        """
        replica, seen = self.replicas[1], self.replicas[1].served
        replica.slow = inf
        # Each has one that need not wait: by what the second router knows itself, they have been served alike.
        asked = [asyncio.create_task(self.ask(1, tenant)) for tenant in ("greedy", "modest")]
        await until(self.both_there(replica, seen))
        asked += [asyncio.create_task(self.ask(1, "greedy")) for _ in range(GREEDY)]
        held = f'tempo_router_held{{slo_class="chat"}} {GREEDY}.0'
        await until(lambda: self.metric(1, held))
        asked += [asyncio.create_task(self.ask(1, "modest")) for _ in range(MODEST)]
        held = f'tempo_router_held{{slo_class="chat"}} {GREEDY + MODEST}.0'
        await until(lambda: self.metric(1, held))
        if first:
            await first()
        for _ in range(10):
            assert (await self.ask(0, "greedy"))[0] == 200
        if then:
            await then()
        replica.slow = 1.0
        for status, body in await asyncio.gather(*asked):
            assert (status, body[-14:]) == (200, b"data: [DONE]\n\n")
        return [headers[TENANT] for headers in replica.headers[seen + AT_ONCE :]]

    @staticmethod
    def both_there(replica, seen):
        """Whether those that need not wait have come to the replica."""

        async def there():
            return replica.served == seen + AT_ONCE

        return there

    async def exchanged(self):
        """Wait until each has told Redis what it served, and has heard what the other did."""
        async with Redis.from_url(self.server.url) as redis:

            async def calls():
                stats = await redis.info("commandstats")
                return stats.get("cmdstat_zmscore", {"calls": 0})["calls"]

            before = await calls()

            async def enough():
                return await calls() >= before + 6  # three rounds of two routers

            await until(enough)


@pytest.fixture
async def together(tmp_path):
    path = tmp_path / "pool.yaml"
    path.write_text(
        yaml.safe_dump_all(
            [chat_class(objectives=PATIENT, overload={"maxQueueTime": "60s"}), a_pool("ns", model=MODEL)]
        )
    )
    with tempfile.TemporaryDirectory(prefix="tempo-") as folder:  # the path of a socket must be short
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(redis_server(Path(folder)))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            replicas, urls = [FakeReplica(tokens=100, pace_s=0.001), FakeReplica(tokens=5, places=1)], []
            for replica in replicas:
                await stack.enter_async_context(replica.running())
                app = build_app(Reloader(path), {"r0": replica.url}, tenants=open_totals(server.url, "chat"))
                urls.append(await stack.enter_async_context(serving(app)))
            pair = Together(server, session, urls, replicas)
            for router in (0, 1):
                await until(lambda router=router: pair.metric(router, 'tempo_router_replica_ready{replica="r0"} 1.0'))
            await pair.shared(1.0)
            yield pair


async def test_whom_one_router_serves_much_stands_back_at_the_other(together):
    assert (await together.order(then=together.exchanged))[:MODEST] == ["modest"] * MODEST


async def test_without_redis_each_serves_everybody_by_what_it_knows_itself_until_it_is_back(together):
    async def dies():
        await together.server.stop()
        await together.shared(0.0)

    order = await together.order(first=dies)
    assert sorted(order) == ["greedy"] * GREEDY + ["modest"] * MODEST
    assert order[:MODEST] != ["modest"] * MODEST
    await together.server.start()
    await together.shared(1.0)
    assert (await together.order(then=together.exchanged))[:MODEST] == ["modest"] * MODEST
