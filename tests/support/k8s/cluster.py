"""A cluster for tests: the test API server, a real control plane, or any cluster that there is.

Which one the environment says: `TEMPO_TEST_KUBECONFIG` names a cluster's kubeconfig, `KUBEBUILDER_ASSETS` a folder with
kube-apiserver, kube-controller-manager and etcd (the convention of controller-runtime's envtest). Otherwise it is the
test API server, and what only a real one can do is skipped.
"""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import kopf
import pytest
import yaml

from support.k8s.api import CRD, NAMESPACE, FakeKubernetes, serving
from support.k8s.client import Client
from support.k8s.control_plane import Away, control_plane, switched
from support.k8s.proxy import kubeconfig_for
from support.local import free_port
from support.processes import until
from tempo_operator.kinds import CHILDREN, POD_MONITOR, POOL, SLO_CLASS

CRDS = Path(__file__).parents[3] / "crds"


@dataclass
class Cluster:
    """One of them, with a client that may do everything."""

    kubeconfig: Path
    client: Client
    info: kopf.ConnectionInfo
    fake: FakeKubernetes | None
    away: Away | None
    """Has the API away as long as the context lasts; None where it is not ours to stop."""

    def needs_fake(self, why: str) -> FakeKubernetes:
        """The test API server, where a test must reach into it."""
        if self.fake is None:
            pytest.skip(f"a real control plane can't be told to {why}")
        return self.fake

    def needs_real(self, why: str) -> None:
        """For what the test API server does not know."""
        if self.fake is not None:
            pytest.skip(f"the test API server has no {why}; set KUBEBUILDER_ASSETS or TEMPO_TEST_KUBECONFIG")

    async def namespace(self) -> str:
        """A new one."""
        name = f"tempo-test-{uuid.uuid4().hex[:8]}"
        if self.fake is None:
            await self.client.create(NAMESPACE, {"metadata": {"name": name}})
        return name

    async def versions(self, namespace: str) -> dict[str, str]:
        """Of every pool and every part of one, by uid."""
        kinds = (POOL, *(kind for kind in CHILDREN if kind is not POD_MONITOR))
        lists = await asyncio.gather(*(self.client.list(kind, namespace) for kind in kinds))
        return {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for items in lists for item in items}

    async def at_rest(self, namespace: str, for_s: float = 1.5, within_s: float = 60.0) -> dict[str, str]:
        """The same, once nothing has changed for so long: Kubernetes' own controllers take their time too."""
        now: dict[str, str] = {}
        async with asyncio.timeout(within_s):
            while True:
                before, now = now, await self.versions(namespace)
                if now and now == before:
                    return now
                await asyncio.sleep(for_s)  # long enough for everything that follows from a change


@asynccontextmanager
async def a_cluster(folder: Path) -> AsyncIterator[Cluster]:
    """The cluster that the environment names, with Tempo's CRDs in it."""
    if kubeconfig := os.environ.get("TEMPO_TEST_KUBECONFIG"):
        async with _connected(Path(kubeconfig), None, None) as cluster:
            yield cluster
    elif assets := os.environ.get("KUBEBUILDER_ASSETS"):
        async with control_plane(Path(assets), folder) as (found, away), _connected(found, None, away) as cluster:
            yield cluster
    else:
        async with emulated(FakeKubernetes(), folder) as cluster:
            yield cluster


@asynccontextmanager
async def emulated(fake: FakeKubernetes, folder: Path) -> AsyncIterator[Cluster]:
    """The test API server as a cluster."""
    port, kubeconfig = free_port(), folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(kubeconfig_for(f"http://127.0.0.1:{port}", {"token": "test"})))
    async with switched(lambda: serving(fake, port)) as away, _connected(kubeconfig, fake, away) as cluster:
        yield cluster


@asynccontextmanager
async def _connected(kubeconfig: Path, fake: FakeKubernetes | None, away: Away | None) -> AsyncIterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        info = kopf.login_with_kubeconfig(settings=kopf.OperatorSettings())
    async with Client(info) as client:
        if fake is None:
            for path in sorted(CRDS.glob("*.yaml")):
                for document in yaml.safe_load_all(path.read_text()):
                    await client.apply(CRD, document)
            for kind in (POOL, SLO_CLASS):
                await until(partial(client.serves, kind), 30)
        yield Cluster(kubeconfig, client, info, fake, away)


@dataclass
class OperatorProcess:
    """`tempo operator`, running."""

    process: asyncio.subprocess.Process
    port: int
    log: Path
    _session: aiohttp.ClientSession = field(repr=False)

    async def requests(self) -> float:
        """How many it has sent to the API so far, watches apart."""
        async with self._session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("tempo_operator_api_requests_total "))

    async def state(self) -> dict:
        """What /readyz says; nothing while it does not answer."""
        try:
            async with self._session.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError):
            return {}

    async def end(self) -> int:
        """SIGTERM; its exit code."""
        self.process.terminate()
        async with asyncio.timeout(15):
            return await self.process.wait()


@asynccontextmanager
async def an_operator(cluster: Cluster, namespace: str, folder: Path, *args: str) -> AsyncIterator[OperatorProcess]:
    """An operator of one namespace, ready; killed in the end, if it still runs then."""
    port, log = free_port(), folder / f"operator-{uuid.uuid4().hex[:6]}.log"
    command = [
        sys.executable,
        "-m",
        "tempo_api.cli",
        "operator",
        "--image",
        "tempo:test",
        "--namespace",
        namespace,
    ]
    command += ["--host", "127.0.0.1", "--port", str(port), "--lease-seconds", "15", *args]
    env = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(*command, env=env, stdout=file, stderr=file)
        found = OperatorProcess(process, port, log, session)
        try:
            await until(lambda: _is_ready(found), 60)
            yield found
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _is_ready(found: OperatorProcess) -> bool:
    assert found.process.returncode is None, found.log.read_text()
    return bool((await found.state()).get("ready"))
