"""What the API server itself does for Tempo, by its CRDs; so these tests need a real one."""

import pytest

from support.k8s.samples import a_pool
from support.manifest_cases import CHANGES, REFUSED, TAKEN
from tempo_operator.kinds import POOL, SLO_CLASS

pytestmark = pytest.mark.asyncio(loop_scope="module")

KINDS = {kind.name: kind for kind in (POOL, SLO_CLASS)}


def placed(document, namespace, **metadata):
    """The document's kind, and the document as one of that namespace."""
    kind = KINDS[document["kind"]]
    where = {"namespace": namespace} if kind.namespaced else {}
    return kind, {**document, "metadata": {**document["metadata"], **where, **metadata}}


@pytest.mark.parametrize("case", TAKEN, ids=lambda case: case.about)
async def test_what_makes_sense_is_taken(cluster, namespace, case):
    cluster.needs_real("schemas and CEL rules")
    assert await cluster.client.refusal(*placed(case.document, namespace)) == ""


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.about)
async def test_what_makes_none_is_refused_and_why(cluster, namespace, case):
    cluster.needs_real("schemas and CEL rules")
    assert case.refused in await cluster.client.refusal(*placed(case.document, namespace))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.about)
async def test_what_clients_and_learned_models_rely_on_can_t_be_changed(cluster, namespace, name, change):
    cluster.needs_real("schemas and CEL rules")
    kind, old = placed(change.old, namespace, name=name)
    await cluster.client.apply(kind, old)
    said = await cluster.client.refusal_of_change(*placed(change.new, namespace, name=name))
    await cluster.client.delete(kind, old["metadata"].get("namespace"), name)
    assert change.refused in said if change.refused else not said


async def test_defaults_are_the_server_s(cluster, namespace, name):
    cluster.needs_real("defaults of CRDs")
    made = await cluster.client.create(POOL, a_pool(namespace, name, engine={}))
    spec = made["spec"]
    assert (spec["engine"]["kind"], spec["router"]["replicas"], spec["scheduler"]["policy"]) == ("VLLM", 2, "tempo")


async def test_tables_tell_whether_promises_are_kept(cluster, namespace, chat, name):
    cluster.needs_real("Tables")
    await cluster.client.create(POOL, a_pool(namespace, name, classes=[{"name": chat}]))
    status = {"replicas": 2, "readyReplicas": 1, "attainment": 0.97, "gainPerSecond": 12.5, "queued": 3}
    await cluster.client.patch(POOL, namespace, name, {"status": status | {"reason": "SomeReplicasReady"}}, "status")
    row = next(row for row in await cluster.client.table(POOL, namespace) if row["Name"] == name)
    assert list(row) == ["Name", "Model", "Ready", "Replicas", "Attainment", "Gain/s", "Queued", "Reason", "Age"]
    shown = ("Ready", "Replicas", "Attainment", "Gain/s", "Queued", "Reason")
    assert [row[column] for column in shown] == [1, 2, 0.97, 12.5, 3, "SomeReplicasReady"]
    row = next(row for row in await cluster.client.table(SLO_CLASS, None) if row["Name"] == chat)
    assert (row["Pattern"], row["TTFT"], row["TBT"]) == ("Latency", "2s", "100ms")


async def test_a_deadline_is_shown_whichever_it_is(cluster, name):
    cluster.needs_real("Tables")
    spec = {"pattern": "Collective", "objectives": {"perStage": "7s"}}
    await cluster.client.create(SLO_CLASS, {**TAKEN[0].document, "metadata": {"name": name}, "spec": spec})
    row = next(row for row in await cluster.client.table(SLO_CLASS, None) if row["Name"] == name)
    await cluster.client.delete(SLO_CLASS, None, name)
    assert row["Deadline"] == "7s"


async def test_a_pool_can_be_scaled_as_deployments_are(cluster, namespace, chat, name):
    cluster.needs_real("scale subresource")
    await cluster.client.create(POOL, a_pool(namespace, name, classes=[{"name": chat}]))
    await cluster.client.patch(POOL, namespace, name, {"spec": {"replicas": 4}}, "scale")
    assert (await cluster.client.get(POOL, namespace, name))["spec"]["replicas"] == 4


async def test_status_and_spec_are_written_through_doors_of_their_own(cluster, namespace, chat, name):
    await cluster.client.create(POOL, a_pool(namespace, name, classes=[{"name": chat}]))
    await cluster.client.patch(POOL, namespace, name, {"status": {"replicas": 7}})
    await cluster.client.patch(POOL, namespace, name, {"spec": {"replicas": 7}}, "status")
    found = await cluster.client.get(POOL, namespace, name)
    assert found["spec"]["replicas"] == 1
    assert not found.get("status")
