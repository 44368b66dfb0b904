"""The life of a pool: made, changed, meddled with, and deleted."""

import asyncio
import copy

import pytest

from support.k8s.samples import a_pool, chat_class
from support.processes import until
from tempo_operator.kinds import CHILDREN, DEPLOYMENT, EVENT, POOL, SLO_CLASS, STATEFUL_SET, Kind

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("operator")]

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SERVICE = Kind("v1", "Service", "services")
ALWAYS_SERVED = [kind for kind in CHILDREN if kind.group != "monitoring.coreos.com"]


async def children(cluster, namespace, name):
    """What a pool is made of just now, by kind and name."""
    selector = f"serving.tempo.dev/pool={name}"
    lists = await asyncio.gather(*(cluster.client.list(kind, namespace, selector) for kind in ALWAYS_SERVED))
    named = zip(ALWAYS_SERVED, lists, strict=True)
    return {(kind.name, item["metadata"]["name"]): item for kind, items in named for item in items}


async def made(cluster, namespace, name, **spec):
    """A pool with everything that belongs to it."""
    await cluster.client.create(POOL, a_pool(namespace, name, **spec))
    await until(lambda: settled(cluster, namespace, name))
    return await children(cluster, namespace, name)


async def settled(cluster, namespace, name):
    pool = await cluster.client.get(POOL, namespace, name)
    return (pool.get("status") or {}).get("observedGeneration") == pool["metadata"]["generation"]


async def condition(cluster, namespace, name, type_, kind=POOL):
    found = await cluster.client.get(kind, namespace, name)
    conditions = (found.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == type_), {"status": "", "reason": ""})


async def test_a_pool_becomes_its_objects_and_is_their_owner(cluster, namespace, chat, name):
    found = await made(cluster, namespace, name, classes=[{"name": chat}])
    assert {kind for kind, _ in found} == {kind.name for kind in ALWAYS_SERVED}
    pool = await cluster.client.get(POOL, namespace, name)
    owners = {item["metadata"]["ownerReferences"][0]["uid"] for item in found.values()}
    assert owners == {pool["metadata"]["uid"]}
    assert not pool["metadata"].get("finalizers"), "a pool can be deleted while no operator runs"


async def test_every_child_deleted_by_hand_is_back(cluster, namespace, chat, name):
    before = await made(cluster, namespace, name, classes=[{"name": chat}])
    for kind in ALWAYS_SERVED:
        for kind_name, child in before:
            if kind_name == kind.name:
                await cluster.client.delete(kind, namespace, child)

    async def back():
        now = await children(cluster, namespace, name)
        return now.keys() == before.keys() and all(
            now[key]["metadata"]["uid"] != before[key]["metadata"]["uid"] for key in before
        )

    await until(back)


EDITS = {
    "StatefulSet": ("engine", {"spec": {"replicas": 5}}),
    "Deployment": ("router", {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 7}}}}),
    "ConfigMap": ("config", {"data": {"pool.yaml": "nonsense"}}),
    "Service": ("router", {"spec": {"selector": {"serving.tempo.dev/pool": "other"}}}),
    "ServiceAccount": ("router", {"automountServiceAccountToken": True}),
    "PodDisruptionBudget": ("engine", {"spec": {"maxUnavailable": 7}}),
    "NetworkPolicy": ("engine", {"spec": {"ingress": [{}]}}),
}


@pytest.mark.parametrize("kind", ALWAYS_SERVED, ids=lambda kind: kind.name)
async def test_a_child_edited_by_hand_is_put_back_and_said_so(cluster, namespace, chat, name, kind):
    part, edit = EDITS[kind.name]
    before = (await made(cluster, namespace, name, classes=[{"name": chat}]))[kind.name, f"{name}-{part}"]
    await cluster.client.patch(kind, namespace, f"{name}-{part}", edit)

    async def right():
        return essence(await cluster.client.get(kind, namespace, f"{name}-{part}")) == essence(before)

    await until(right)
    await until(lambda: said(cluster, namespace, name, "DriftRepaired"))


def essence(document):
    """All that was asked for, and nothing that the API counts."""
    document = copy.deepcopy(document)
    for left_out in ("status", "apiVersion", "kind"):  # the last two are not said of the items of a list
        document.pop(left_out, None)
    for counted in ("resourceVersion", "generation", "managedFields"):
        document["metadata"].pop(counted, None)
    document["metadata"]["annotations"].pop("deployment.kubernetes.io/revision", None)
    return document


async def said(cluster, namespace, name, reason):
    events = await cluster.client.list(EVENT, namespace)
    return [e for e in events if e["involvedObject"]["name"] == name and e["reason"] == reason]


async def test_what_others_add_stays(cluster, namespace, chat, name):
    await made(cluster, namespace, name, classes=[{"name": chat}])
    theirs = {"metadata": {"labels": {"theirs": "yes"}, "annotations": {"theirs": "too"}}}
    await cluster.client.patch(SERVICE, namespace, f"{name}-router", theirs)
    mesh = {"template": {"spec": {"containers": [{"name": "mesh", "image": "mesh:1"}]}}}
    theirs = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": mesh}
    await cluster.client.apply(DEPLOYMENT, theirs | {"metadata": {"namespace": namespace, "name": f"{name}-router"}})
    await cluster.client.patch(POOL, namespace, name, {"spec": {"router": {"replicas": 3, "accessLog": True}}})

    async def changed():
        router = await cluster.client.get(DEPLOYMENT, namespace, f"{name}-router")
        return router["spec"]["replicas"] == 3

    await until(changed)
    router = await cluster.client.get(DEPLOYMENT, namespace, f"{name}-router")
    assert {c["name"] for c in router["spec"]["template"]["spec"]["containers"]} == {"router", "mesh"}
    service = await cluster.client.get(SERVICE, namespace, f"{name}-router")
    assert service["metadata"]["labels"]["theirs"] == "yes"
    assert service["metadata"]["annotations"]["theirs"] == "too"


async def test_what_is_wanted_no_more_is_taken_away(cluster, namespace, chat, name):
    engine = {"env": [{"name": "GONE", "value": "1"}], "nodeSelector": {"gone": "yes"}}
    await made(cluster, namespace, name, classes=[{"name": chat}], engine=engine)
    await cluster.client.patch(POOL, namespace, name, {"spec": {"engine": {"env": None, "nodeSelector": None}}})

    async def taken_away():
        engines = await cluster.client.get(STATEFUL_SET, namespace, f"{name}-engine")
        pod = engines["spec"]["template"]["spec"]
        return not pod.get("nodeSelector") and "GONE" not in {e["name"] for e in pod["containers"][0]["env"]}

    await until(taken_away)


async def test_words_of_the_api_s_own_are_no_drift(cluster, namespace, chat, name):
    """A quantity in other words, and an empty value that the API leaves out."""
    resources = {"requests": {"cpu": "0.5"}, "limits": {"nvidia.com/gpu": 2}}
    engine = {"env": [{"name": "EMPTY", "value": ""}], "resources": resources}
    await made(cluster, namespace, name, classes=[{"name": chat}], engine=engine)
    before = await cluster.at_rest(namespace)
    await asyncio.sleep(2.0)  # four looks
    assert await cluster.versions(namespace) == before
    assert not await said(cluster, namespace, name, "DriftRepaired")


async def test_an_autoscaler_may_scale_within_its_limits(cluster, namespace, chat, name):
    limits = {"minReplicas": 2, "maxReplicas": 6}
    await made(cluster, namespace, name, classes=[{"name": chat}], replicas=None, autoscaling=limits)
    engines = await cluster.client.get(STATEFUL_SET, namespace, f"{name}-engine")
    assert engines["spec"]["replicas"] == 2
    await cluster.client.patch(STATEFUL_SET, namespace, f"{name}-engine", {"spec": {"replicas": 4}})

    async def routed():
        config = await cluster.client.get(CONFIG_MAP, namespace, f"{name}-config")
        return f"{name}-engine-3" in "".join(config["data"].values())

    await until(routed)
    await cluster.client.patch(POOL, namespace, name, {"spec": {"engine": {"args": ["--seed=1"]}}})

    async def rolled():
        engines = await cluster.client.get(STATEFUL_SET, namespace, f"{name}-engine")
        return "--seed=1" in engines["spec"]["template"]["spec"]["containers"][0]["command"]

    await until(rolled)
    engines = await cluster.client.get(STATEFUL_SET, namespace, f"{name}-engine")
    assert engines["spec"]["replicas"] == 4


async def test_a_changed_class_reaches_its_pools_and_restarts_nothing(cluster, namespace, chat, name):
    before = await made(cluster, namespace, name, classes=[{"name": chat}])
    await cluster.client.patch(SLO_CLASS, None, chat, {"spec": {"objectives": {"ttft": "7s"}}})

    async def arrived():
        config = await cluster.client.get(CONFIG_MAP, namespace, f"{name}-config")
        return "7s" in config["data"]["pool.yaml"]

    await until(arrived)
    after = await children(cluster, namespace, name)
    for key in (("StatefulSet", f"{name}-engine"), ("Deployment", f"{name}-router")):
        assert after[key]["metadata"]["generation"] == before[key]["metadata"]["generation"]


async def test_a_missing_class_is_a_condition_until_it_is_there(cluster, namespace, name):
    absent = f"late-{name}"
    await cluster.client.create(POOL, a_pool(namespace, name, classes=[{"name": absent}]))

    async def degraded(reason):
        return (await condition(cluster, namespace, name, "Degraded"))["reason"] == reason

    await until(lambda: degraded("ClassNotFound"))
    await until(lambda: said(cluster, namespace, name, "ClassNotFound"))
    assert absent in (await condition(cluster, namespace, name, "Degraded"))["message"]
    await cluster.client.create(SLO_CLASS, chat_class(absent))
    await until(lambda: degraded("AsExpected"))
    await cluster.client.delete(SLO_CLASS, None, absent)
    await until(lambda: degraded("ClassNotFound"))
    assert await cluster.client.get(STATEFUL_SET, namespace, f"{name}-engine"), "what serves goes on serving"


async def test_classes_that_do_not_go_together_are_a_condition_and_an_event(cluster, namespace, chat, name):
    await cluster.client.create(SLO_CLASS, chat_class(name))
    both = [{"name": chat}, {"name": name}]
    await cluster.client.create(POOL, a_pool(namespace, name, classes=both))  # each of them the default

    async def degraded():
        return (await condition(cluster, namespace, name, "Degraded"))["reason"] == "InvalidSpec"

    await until(degraded)
    await until(lambda: said(cluster, namespace, name, "InvalidSpec"))
    await cluster.client.delete(SLO_CLASS, None, name)


async def test_an_accepted_class_says_so(cluster, chat):
    async def accepted():
        return (await condition(cluster, None, chat, "Accepted", SLO_CLASS))["status"] == "True"

    await until(accepted)


async def test_somebody_elses_object_is_not_taken_over(cluster, namespace, chat, name):
    theirs = {"metadata": {"namespace": namespace, "name": f"{name}-config"}, "data": {"theirs": "1"}}
    await cluster.client.create(CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", **theirs})
    await cluster.client.create(POOL, a_pool(namespace, name, classes=[{"name": chat}]))

    async def conflict():
        return (await condition(cluster, namespace, name, "Degraded"))["reason"] == "NameConflict"

    await until(conflict)
    left = await cluster.client.get(CONFIG_MAP, namespace, f"{name}-config")
    assert left["data"] == {"theirs": "1"}
    assert "ownerReferences" not in left["metadata"]


async def test_a_deleted_pool_takes_its_objects_along(cluster, namespace, chat, name):
    await made(cluster, namespace, name, classes=[{"name": chat}])
    await cluster.client.delete(POOL, namespace, name)

    async def gone():
        return not await children(cluster, namespace, name)

    await until(gone, 60)  # a garbage collector that is new learns of new kinds every half a minute
