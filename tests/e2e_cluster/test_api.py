"""What the API server itself does for Tempo, by its CRDs; so these tests need a real one."""

import pytest

from support.k8s.samples import a_pool, chat_class
from tempo_operator.kinds import POOL, SLO_CLASS

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"pattern": "Deadline"}, "objectives"),
        ({"pattern": "BestEffort"}, "objectives"),
        ({"objectives": {"ttft": "soon", "tbt": "100ms"}}, "ttft"),
        ({"gain": {"weight": -1}}, "weight"),
    ],
)
async def test_a_class_that_makes_no_sense_is_refused(cluster, spec, says):
    cluster.needs_real("schemas and CEL rules")
    assert says in await cluster.client.refusal(SLO_CLASS, chat_class("nonsense", **spec))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"replicas": 2, "autoscaling": {"minReplicas": 1, "maxReplicas": 3}}, "replicas"),
        ({"replicas": None, "autoscaling": {"minReplicas": 3, "maxReplicas": 1}}, "minReplicas"),
        ({"model": ""}, "model"),
        ({"scheduler": {"lengthQuantile": 2}}, "lengthQuantile"),
    ],
)
async def test_a_pool_that_makes_no_sense_is_refused(cluster, namespace, spec, says):
    cluster.needs_real("schemas and CEL rules")
    assert says in await cluster.client.refusal(POOL, a_pool(namespace, "nonsense", **spec))


async def test_good_ones_are_accepted(cluster, namespace):
    cluster.needs_real("schemas and CEL rules")
    assert await cluster.client.refusal(SLO_CLASS, chat_class("sensible")) == ""
    assert await cluster.client.refusal(POOL, a_pool(namespace, "sensible")) == ""


async def test_tables_tell_whether_promises_are_kept(cluster, namespace, chat, name):
    cluster.needs_real("Tables")
    await cluster.client.create(POOL, a_pool(namespace, name, classes=[{"name": chat}]))
    status = {"replicas": 2, "readyReplicas": 1, "attainment": 0.97, "reason": "SomeReplicasReady"}
    await cluster.client.patch(POOL, namespace, name, {"status": status}, "status")
    row = next(row for row in await cluster.client.table(POOL, namespace) if row["Model"].startswith("Qwen"))
    assert (row["Ready"], row["Replicas"], row["Attainment"], row["Reason"]) == (1, 2, 0.97, "SomeReplicasReady")
    row = next(row for row in await cluster.client.table(SLO_CLASS, None) if row["Name"] == chat)
    assert (row["Pattern"], row["TTFT"], row["TBT"]) == ("Latency", "2s", "100ms")


async def test_a_pool_can_be_scaled_as_deployments_are(cluster, namespace, chat, name):
    cluster.needs_real("scale subresource")
    await cluster.client.create(POOL, a_pool(namespace, name, classes=[{"name": chat}]))
    await cluster.client.patch(POOL, namespace, name, {"spec": {"replicas": 4}}, "scale")
    assert (await cluster.client.get(POOL, namespace, name))["spec"]["replicas"] == 4
