"""PodMonitors, where the cluster has that API, from when it has it."""

from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from kmock import resource

from support.k8s.api import CRD
from support.k8s.cluster import an_operator
from support.k8s.samples import a_pool
from support.processes import until
from tempo_operator.kinds import DEPLOYMENT, POD_MONITOR, POOL

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
MONITORS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "podmonitors.monitoring.coreos.com"},
    "spec": {
        "group": POD_MONITOR.group,
        "scope": "Namespaced",
        "names": {"kind": POD_MONITOR.name, "plural": POD_MONITOR.plural, "singular": "podmonitor"},
        "versions": [
            {
                "name": POD_MONITOR.version,
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": ANYTHING}}},
            }
        ],
    },
}


@pytest_asyncio.fixture(loop_scope="module")
async def given(cluster):
    """Takes the API away; yields what gives it back for as long as a context lasts."""
    if cluster.fake is None and await cluster.client.serves(POD_MONITOR):
        pytest.skip("this cluster's PodMonitors are somebody's")
    key = resource(POD_MONITOR.group, POD_MONITOR.version, POD_MONITOR.plural)
    known = cluster.fake and cluster.fake.resources.pop(key)

    @asynccontextmanager
    async def for_a_while():
        if cluster.fake is None:
            await cluster.client.create(CRD, MONITORS)
        else:
            cluster.fake.resources[key] = known
        yield
        if cluster.fake is None:
            await cluster.client.delete(CRD, None, MONITORS["metadata"]["name"])
        else:
            del cluster.fake.resources[key]

    yield for_a_while
    if cluster.fake is not None:
        cluster.fake.resources[key] = known


async def test_monitors_are_made_once_the_cluster_knows_them_and_missed_by_nobody_when_it_no_longer_does(
    cluster, chat, given, tmp_path
):
    namespace = await cluster.namespace()

    async def monitor():
        known = await cluster.client.serves(POD_MONITOR)
        return await cluster.client.get(POD_MONITOR, namespace, "pool") if known else None

    async def routers(count):
        found = await cluster.client.get(DEPLOYMENT, namespace, "pool-router")
        return found is not None and found["spec"]["replicas"] == count

    async def as_expected():
        conditions = (await cluster.client.get(POOL, namespace, "pool"))["status"]["conditions"]
        return {"type": "Degraded", "reason": "AsExpected"}.items() <= conditions[-1].items()

    async with an_operator(cluster, namespace, tmp_path, "--resync-seconds", "1") as operator:
        await cluster.client.create(POOL, a_pool(namespace, classes=[{"name": chat}]))
        await until(lambda: routers(2))
        assert await monitor() is None
        async with given():
            await until(monitor, 40)
            uid = (await monitor())["metadata"]["uid"]
            await cluster.client.delete(POD_MONITOR, namespace, "pool")

            async def back():
                found = await monitor()
                return found is not None and found["metadata"]["uid"] != uid

            await until(back)
        await cluster.client.patch(POOL, namespace, "pool", {"spec": {"router": {"replicas": 3}}})
        await until(lambda: routers(3), 40)
        await until(as_expected, 90)
        assert operator.process.returncode is None
