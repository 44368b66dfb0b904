"""What a change does to running pods. Kubernetes' own controllers replace them, so these tests need a real one."""

import asyncio

import pytest

from support.k8s.kubelet import FakeKubelet
from support.k8s.samples import a_pool
from support.processes import until
from tempo_operator.kinds import POD, POOL

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("operator")]


async def engines(cluster, namespace, pool):
    """The engine pods that are not on their way out, by uid."""
    selector = f"serving.tempo.dev/pool={pool},app.kubernetes.io/component=engine"
    found = await cluster.client.list(POD, namespace, selector)
    return {pod["metadata"]["uid"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}


def is_ready(pod):
    conditions = pod["status"].get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def served(cluster, namespace, name, kubelet, chat):
    """A pool of three engines, all of them ready."""
    await cluster.client.create(POOL, a_pool(namespace, name, replicas=3, classes=[{"name": chat}]))

    async def ready():
        await kubelet.start(name)
        conditions = ((await cluster.client.get(POOL, namespace, name)).get("status") or {}).get("conditions") or ()
        return any(c["reason"] == "AllReplicasReady" for c in conditions)

    await until(ready, 60)
    return await engines(cluster, namespace, name)


async def test_engines_are_replaced_one_at_a_time_and_each_waits_for_the_last_to_be_ready(
    cluster, namespace, chat, name
):
    cluster.needs_real("controller of StatefulSets")
    kubelet = FakeKubelet(cluster, namespace)
    before = await served(cluster, namespace, name, kubelet, chat)
    assert len(before) == 3
    await cluster.client.patch(POOL, namespace, name, {"spec": {"engine": {"args": ["--seed=1"]}}})
    fewest = 3

    async def replaced():
        nonlocal fewest
        now = await engines(cluster, namespace, name)
        ready = {uid for uid, pod in now.items() if is_ready(pod)}
        fewest = min(fewest, len(ready))
        if len(ready) < len(now) == 3:
            await asyncio.sleep(0.5)  # an engine takes its time to start, and the next must wait
            await kubelet.start(name)
        return not ready & before.keys() and len(ready) == 3

    await until(replaced, 60)
    assert fewest == 2


async def test_what_every_part_takes_over_replaces_no_pod(cluster, namespace, chat, name):
    cluster.needs_real("controller of StatefulSets")
    kubelet = FakeKubelet(cluster, namespace)
    before = await served(cluster, namespace, name, kubelet, chat)
    spec = {"scheduler": {"policy": "fcfs"}, "classes": [{"name": chat, "weight": 7}], "router": {"maxBodyBytes": 1024}}
    changed = await cluster.client.patch(POOL, namespace, name, {"spec": spec})

    async def taken_over():
        status = (await cluster.client.get(POOL, namespace, name))["status"]
        return status["observedGeneration"] == changed["metadata"]["generation"]

    await until(taken_over)
    await asyncio.sleep(2.0)  # in which a roll-out would begin
    assert (await engines(cluster, namespace, name)).keys() == before.keys()
