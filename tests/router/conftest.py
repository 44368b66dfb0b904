"""A router before engines that play their own sidecars."""

import json
from contextlib import AsyncExitStack

import aiohttp
import openai
import pytest
import yaml

from support.fake_engine import MODEL, FakeEngine
from support.processes import until
from support.serving import QUICKSTART, serving
from tempo_api.reload import Reloader
from tempo_router.app import build_app
from tempo_router.replicas import ReplicasFile
from tempo_sidecar.lengths import WindowLengths
from tempo_sidecar.proxy import Sidecar

MANIFEST = f"""
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {{name: chat}}
spec: {{pattern: Latency, objectives: {{ttft: 2s, tbt: 100ms}}, default: true, overload: {{maxQueueTime: 300ms}}}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {{name: tool}}
spec: {{pattern: Deadline, objectives: {{ttlt: 200ms}}}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {{name: agent}}
spec: {{pattern: Collective, objectives: {{perStage: 10s}}}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: TempoPool
metadata: {{name: test}}
spec:
  model: {MODEL}
  router: {{maxBodyBytes: 100000, maxConcurrentRequests: 400}}
"""


class RunningRouter:
    """A router under test and two clients for it: the official one, and a plain one for bytes."""

    def __init__(self, app, url, manifest, session, client):
        self.app, self.url, self.manifest, self.session, self.client = app, url, manifest, session, client

    async def post(self, body, path="/v1/chat/completions", **headers):
        """Status, headers and body of the answer."""
        data = body if isinstance(body, bytes) else json.dumps(body)
        async with self.session.post(self.url + path, data=data, headers=headers) as answer:
            return answer.status, answer.headers, await answer.read()

    async def replicas(self):
        """Which are ready, by name."""
        async with self.session.get(f"{self.url}/readyz") as answer:
            return (await answer.json())["replicas"]

    async def metric(self, name, **labels):
        """The sum of a metric's values with these labels."""
        async with self.session.get(f"{self.url}/metrics") as answer:
            text = await answer.text()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(part in line for part in wanted))


@pytest.fixture
async def start(tmp_path):
    """Starts a router before these engines or URLs, named r0, r1 and so on, and waits until it knows who is ready.

    With a `file`, that is where it learns of them.
    """
    async with AsyncExitStack() as stack:

        async def start(*replicas, max_concurrent=400, file=None):
            engines = [replica for replica in replicas if isinstance(replica, FakeEngine)]
            for engine in engines:
                await stack.enter_async_context(engine.running())
            urls = {f"r{i}": getattr(replica, "url", replica) for i, replica in enumerate(replicas)}
            path = tmp_path / "pool.yaml"
            path.write_text(MANIFEST.replace("400", str(max_concurrent)))
            if file:
                file.write_text(yaml.safe_dump(urls))
            app = build_app(Reloader(path), ReplicasFile(file) if file else urls)
            url = await stack.enter_async_context(serving(app))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-test", max_retries=0, timeout=10.0)
            router = RunningRouter(app, url, path, session, await stack.enter_async_context(client))
            healthy = sum(engine.healthy for engine in engines)

            async def known():
                return sum((await router.replicas()).values()) == healthy

            await until(known)
            return router

        yield start


@pytest.fixture
async def pair(start):
    """A router, and the engine at the other end of a sidecar."""
    engine = FakeEngine(tokens=3, obeys=False)
    async with engine.running():
        sidecar = Sidecar(engine.url, Reloader(QUICKSTART), WindowLengths())
        async with serving(sidecar.app()) as url:
            router = await start(url)

            async def ready():
                return (await router.replicas())["r0"]

            await until(ready)
            yield router, engine
