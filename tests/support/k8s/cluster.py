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
from pathlib import Path

import aiohttp
import kopf
import pytest
import yaml

from support.k8s.api import CRD, NAMESPACE, FakeKubernetes, serving
from support.k8s.client import Client
from support.k8s.control_plane import control_plane
from support.local import free_port
from support.processes import until

CRDS = Path(__file__).parents[3] / "crds"


@dataclass
class Cluster:
    """One of them, with a client that may do everything."""

    kubeconfig: Path
    client: Client
    fake: FakeKubernetes | None

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


@asynccontextmanager
async def a_cluster(folder: Path) -> AsyncIterator[Cluster]:
    """The cluster that the environment names, with Tempo's CRDs in it."""
    if kubeconfig := os.environ.get("TEMPO_TEST_KUBECONFIG"):
        async with _connected(Path(kubeconfig), None) as cluster:
            yield cluster
    elif assets := os.environ.get("KUBEBUILDER_ASSETS"):
        async with control_plane(Path(assets), folder) as found, _connected(found, None) as cluster:
            yield cluster
    else:
        fake = FakeKubernetes()
        async with serving(fake) as port, connected_to(fake, port, folder) as cluster:
            yield cluster


@asynccontextmanager
async def connected_to(fake: FakeKubernetes, port: int, folder: Path) -> AsyncIterator[Cluster]:
    """The test API server on that port, as a cluster."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(_fake_kubeconfig(port)))
    async with _connected(kubeconfig, fake) as cluster:
        yield cluster


def _fake_kubeconfig(port: int) -> dict:
    return {
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "test", "user": {"token": "test"}}],
    }


@asynccontextmanager
async def _connected(kubeconfig: Path, fake: FakeKubernetes | None) -> AsyncIterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        info = kopf.login_with_kubeconfig(settings=kopf.OperatorSettings())
    async with Client(info) as client:
        if fake is None:
            for path in sorted(CRDS.glob("*.yaml")):
                for document in yaml.safe_load_all(path.read_text()):
                    await client.apply(CRD, document)
            await asyncio.sleep(2.0)  # served a moment after they were accepted
        yield Cluster(kubeconfig, client, fake)


@dataclass
class OperatorProcess:
    """`tempo operator`, running."""

    process: asyncio.subprocess.Process
    port: int
    log: Path
    _session: aiohttp.ClientSession = field(repr=False)

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
    command += ["--host", "127.0.0.1", "--port", str(port), "--lease-seconds", "5", *args]
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
