"""A real router before FakeReplicas, and clients that never stop asking."""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
import yaml

from support.fake_engine import MODEL
from support.k8s.samples import a_pool, chat_class
from support.processes import until
from support.serving import serving
from tempo_api.reload import Reloader
from tempo_router.app import build_app
from tempo_router.limits import Limits

QUICK = Limits(
    stale_s=0.5,
    probe_every_s=0.05,
    probe_timeout_s=0.5,
    first_pause_s=0.01,
    longest_pause_s=0.1,
    ask_again_s=0.1,
    window_s=5.0,
    least_answers=5,
    slow_s=0.05,
    silent_s=1.0,
    out_s=0.3,
)
"""The router's patience, a few times shorter."""
HANGS_S = 20.0
"""A client that waits for longer than this waits in vain."""
_ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hello."}], "stream": True}


@dataclass
class Answer:
    """What a client got."""

    at_s: float
    """When it was complete."""
    status: int
    replica: str
    body: bytes

    @property
    def whole(self):
        """Every token once, and the end."""
        good = self.status == 200 and b'"error"' not in self.body
        return good and self.body.count(b'"stop"') == 1 and self.body.endswith(b"data: [DONE]\n\n")

    @property
    def said_so(self):
        """It broke off after its first token, and ended with an error event."""
        return self.status == 200 and 0 < self.body.find(b'" w0"') < self.body.find(b'"error"')


class Trial:
    """The router, its replicas by name, and what its clients got."""

    def __init__(self, url, session, replicas):
        self.url, self.session, self.replicas = url, session, replicas
        self.answers = []

    async def ask(self):
        """One request, whose answer is kept; never longer than `HANGS_S`."""
        async with asyncio.timeout(HANGS_S):
            async with self.session.post(f"{self.url}/v1/chat/completions", json=_ASK) as answer:
                body = await answer.read()
            self.answers.append(
                Answer(time.monotonic(), answer.status, answer.headers.get("x-tempo-replica", ""), body)
            )
        return self.answers[-1]

    @asynccontextmanager
    async def load(self, clients):
        """So many clients, each with a request at all times; they end what they began."""
        stop = asyncio.Event()

        async def client():
            while not stop.is_set():
                await self.ask()

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
            yield
            stop.set()

    async def answered(self, count, since=0):
        """Wait for so many more answers than `since`."""
        await until(lambda: len(self.answers) >= since + count)

    async def ejected(self):
        """Names of those that are left alone for how requests fare there."""
        async with self.session.get(f"{self.url}/metrics") as answer:
            text = await answer.text()
        return {name for name in self.replicas if f'replica_ejected{{replica="{name}"}} 1.0' in text}

    async def ready(self):
        """Names of the replicas that take requests."""
        async with self.session.get(f"{self.url}/readyz") as answer:
            return {name for name, ready in (await answer.json())["replicas"].items() if ready}

    async def until_in(self, *names):
        """Wait until these take requests; returns for how many seconds."""
        return await self._until(lambda ready: ready.issuperset(names))

    async def until_out(self, *names):
        """Wait until these take none."""
        return await self._until(lambda ready: ready.isdisjoint(names))

    async def _until(self, true):
        began_s = time.monotonic()

        async def so():
            return true(await self.ready())

        await until(so)
        return time.monotonic() - began_s

    def by_replica(self, since=0):
        """Whole answers, counted."""
        return Counter(answer.replica for answer in self.answers[since:] if answer.whole)


@asynccontextmanager
async def trial(tmp_path, *replicas, limits=QUICK, max_queue_time="30s"):
    """Replicas r0, r1 and so on behind a router that knows them all to be ready."""
    path = tmp_path / "pool.yaml"
    path.write_text(
        yaml.safe_dump_all([chat_class(overload={"maxQueueTime": max_queue_time}), a_pool("ns", model=MODEL)])
    )
    async with AsyncExitStack() as stack:
        for replica in replicas:
            await stack.enter_async_context(replica.running())
        named = {f"r{index}": replica for index, replica in enumerate(replicas)}
        urls = {name: replica.url for name, replica in named.items()}
        url = await stack.enter_async_context(serving(build_app(Reloader(path), urls, limits=limits)))
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        running = Trial(url, session, named)
        await running.until_in(*named)
        yield running
