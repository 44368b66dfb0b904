"""What goes wrong around an operator, and how it comes back by itself."""

import asyncio
import json
import time
from dataclasses import replace

import pytest
import pytest_asyncio

from support.k8s.cluster import an_operator
from support.k8s.proxy import proxying
from support.k8s.samples import a_pool
from support.processes import until
from tempo_operator.kinds import EVENT, POOL, SLO_CLASS, STATEFUL_SET

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def engines(cluster, namespace):
    return await cluster.client.get(STATEFUL_SET, namespace, "pool-engine")


async def settled(cluster, namespace):
    pool = await cluster.client.get(POOL, namespace, "pool")
    return bool((pool.get("status") or {}).get("conditions")) and bool(await engines(cluster, namespace))


async def reason(cluster, namespace, type_):
    pool = await cluster.client.get(POOL, namespace, "pool")
    conditions = (pool.get("status") or {}).get("conditions") or []
    return next((condition["reason"] for condition in conditions if condition["type"] == type_), "")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def between(cluster, chat, tmp_path_factory):
    """An operator and one pool, and a proxy between the operator and the API to torment it with."""
    folder, namespace = tmp_path_factory.mktemp("between"), await cluster.namespace()
    async with proxying(cluster.info, folder / "kubeconfig") as proxy:
        behind = replace(cluster, kubeconfig=folder / "kubeconfig")
        rarely = ("--look-seconds", "3600")  # so that no figures have it look at the pool anew
        async with an_operator(behind, namespace, folder, "--resync-seconds", "2", *rarely) as operator:
            await cluster.client.create(POOL, a_pool(namespace, classes=[{"name": chat}]))
            await until(lambda: settled(cluster, namespace))
            yield proxy, namespace, operator


async def another_generation(cluster, namespace, uid):
    found = await engines(cluster, namespace)
    return found is not None and found["metadata"]["uid"] != uid


@pytest.mark.parametrize("trouble", ["drop_watches", "expire"])
async def test_watches_that_are_cut_or_expire_are_taken_up_again(cluster, between, trouble):
    proxy, namespace, _ = between
    uid = (await engines(cluster, namespace))["metadata"]["uid"]
    getattr(proxy, trouble)()
    await cluster.client.delete(STATEFUL_SET, namespace, "pool-engine")
    await until(lambda: another_generation(cluster, namespace, uid), 30)


async def test_what_vanished_while_nobody_watched_is_noticed(cluster, between):
    proxy, namespace, _ = between
    uid = (await engines(cluster, namespace))["metadata"]["uid"]
    with proxy.blind():
        await cluster.client.delete(STATEFUL_SET, namespace, "pool-engine")
        await until(lambda: another_generation(cluster, namespace, uid), 30)


async def test_a_pool_changed_while_its_status_is_written_is_looked_at_again(cluster, between):
    proxy, namespace, _ = between
    path, wanted = POOL.path(namespace, "pool", "status"), (await engines(cluster, namespace))["spec"]["replicas"] + 1

    async def change(_, asked):
        if asked.endswith(path):
            proxy.before = None
            await cluster.client.patch(POOL, namespace, "pool", {"spec": {"engine": {"args": ["--seed=7"]}}})

    async def restarted():
        return "--seed=7" in json.dumps(await engines(cluster, namespace))

    with proxy.blind():  # so that the answer tells of the change, before any event could
        proxy.before = change
        await cluster.client.patch(POOL, namespace, "pool", {"spec": {"replicas": wanted}})
        await until(restarted, 30)


async def test_so_is_a_class(cluster, chat, between):
    proxy, _, _ = between
    path = SLO_CLASS.path(None, chat, "status")

    async def change(_, asked):
        if asked.endswith(path):
            proxy.before = None
            await cluster.client.patch(SLO_CLASS, None, chat, {"spec": {"gain": {"weight": 3}}})

    async def accepted():
        slo_class = await cluster.client.get(SLO_CLASS, None, chat)
        changed = slo_class["spec"]["gain"]["weight"] == 3
        return changed and slo_class["status"]["observedGeneration"] == slo_class["metadata"]["generation"]

    with proxy.blind():
        proxy.before = change
        await cluster.client.patch(SLO_CLASS, None, chat, {"spec": {"gain": {"weight": 2}}})
        await until(accepted, 30)


@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry-After": "1"}), (409, {}), (500, {}), (503, {})])
async def test_refused_writes_are_tried_again(cluster, between, status, headers):
    proxy, namespace, operator = between
    proxy.fail(3, status, "PATCH /apis/apps", **headers)
    began, wanted = time.monotonic(), (await engines(cluster, namespace))["spec"]["replicas"] + 1
    await cluster.client.patch(POOL, namespace, "pool", {"spec": {"replicas": wanted}})

    async def scaled():
        return (await engines(cluster, namespace))["spec"]["replicas"] == wanted

    await until(scaled, 40)
    assert not proxy.faults
    assert operator.process.returncode is None
    if "Retry-After" in headers:
        assert time.monotonic() - began > 2.5, "three times a second, as asked"


async def test_a_refusal_that_will_not_pass_is_a_condition_and_not_asked_for_again_and_again(cluster, between):
    proxy, namespace, _ = between
    said = "failed to create typed patch object: .spec.template.spec.volumes: field not declared in schema"
    proxy.fail(20, 500, "PATCH /apis/apps", said)
    await cluster.client.patch(POOL, namespace, "pool", {"spec": {"engine": {"args": ["--seed=1"]}}})

    async def degraded():
        return await reason(cluster, namespace, "Degraded") == "ApplyRefused"

    await until(degraded, 60)

    async def told():
        events = await cluster.client.list(EVENT, namespace)
        return any(said in event["message"] for event in events if event["reason"] == "ApplyRefused")

    await until(told, 60)
    await asyncio.sleep(3.0)  # in which whoever is in a hot loop uses up all that was laid out
    assert len(proxy.faults) > 10
    proxy.faults.clear()
    await cluster.client.patch(POOL, namespace, "pool", {"spec": {"engine": {"args": ["--seed=2"]}}})

    async def recovered():
        return await reason(cluster, namespace, "Degraded") == "AsExpected"

    await until(recovered, 60)


async def test_the_api_may_be_away_for_longer_than_a_lease(cluster, chat, tmp_path):
    if cluster.away is None:
        pytest.skip("somebody else's API server can't be stopped")
    namespace = await cluster.namespace()
    async with an_operator(cluster, namespace, tmp_path, "--lease-seconds", "5") as operator:

        async def leads():
            return (await operator.state()).get("leading")

        await until(leads)
        async with cluster.away():
            await asyncio.sleep(7.0 if cluster.fake else 60.0)  # the operator is really without it for so long
            assert not await leads()
        await cluster.client.create(POOL, a_pool(namespace, classes=[{"name": chat}]))
        await until(lambda: settled(cluster, namespace), 60)
