"""What goes wrong around an operator, and how it comes back by itself."""

import asyncio
import signal
import time
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from support.k8s.api import FakeKubernetes, serving
from support.k8s.cluster import an_operator, connected_to
from support.k8s.samples import a_pool, chat_class
from support.processes import until
from tempo_operator.kinds import CHILDREN, LEASE, POOL, SLO_CLASS, STATEFUL_SET

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def engines(cluster, namespace, name):
    return await cluster.client.get(STATEFUL_SET, namespace, f"{name}-engine")


async def holder(cluster, namespace):
    lease = await cluster.client.get(LEASE, namespace, "tempo-operator")
    return lease and lease["spec"]["holderIdentity"]


async def leads(operator):
    return (await operator.state()).get("leading")


async def versions(cluster, namespace):
    """Of everything but the lease."""
    kinds = [POOL, *(kind for kind in CHILDREN if kind.group != "monitoring.coreos.com")]
    lists = await asyncio.gather(*(cluster.client.list(kind, namespace) for kind in kinds))
    return {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for items in lists for item in items}


async def settled(cluster, namespace, name):
    pool = await cluster.client.get(POOL, namespace, name)
    return bool((pool.get("status") or {}).get("conditions")) and bool(await engines(cluster, namespace, name))


async def test_a_restart_changes_nothing_in_a_settled_cluster(cluster, chat, name, tmp_path):
    namespace = await cluster.namespace()
    async with an_operator(cluster, namespace, tmp_path) as operator:
        await cluster.client.create(POOL, a_pool(namespace, name, classes=[{"name": chat}]))
        await until(lambda: settled(cluster, namespace, name))
        assert await operator.end() == 0
    before = await versions(cluster, namespace)
    async with an_operator(cluster, namespace, tmp_path, "--look-seconds", "0.3") as operator:
        await until(lambda: leads(operator))
        await asyncio.sleep(1.0)  # three looks at what it found
        assert await versions(cluster, namespace) == before


async def test_of_two_operators_one_acts_and_the_other_takes_over(cluster, chat, name, tmp_path):
    namespace = await cluster.namespace()
    async with (
        an_operator(cluster, namespace, tmp_path) as one,
        an_operator(cluster, namespace, tmp_path) as other,
    ):
        both = (one, other)
        await until(lambda: holder(cluster, namespace))
        await cluster.client.create(POOL, a_pool(namespace, name, classes=[{"name": chat}]))
        await until(lambda: settled(cluster, namespace, name))
        states = [await operator.state() for operator in both]
        assert sorted(state["leading"] for state in states) == [False, True]
        assert all(state["ready"] for state in states)
        leader, follower = sorted(both, key=lambda operator: states[both.index(operator)]["leading"], reverse=True)
        if cluster.fake:
            ours = [path for _, method, path in cluster.fake.writes if method == "PATCH" and name in path]
            assert len([path for path in ours if "status" not in path]) == len(set(ours)) - 1, "written once each"
        leader.process.send_signal(signal.SIGKILL)
        began = time.monotonic()
        await cluster.client.delete(STATEFUL_SET, namespace, f"{name}-engine")
        await until(lambda: leads(follower), 30)
        await until(lambda: engines(cluster, namespace, name))
        assert time.monotonic() - began < 20, "leases are 5 seconds here, 20 by default: then it is under 30"


async def test_an_operator_that_is_asked_to_end_hands_over_at_once(cluster, name, tmp_path):
    namespace = await cluster.namespace()
    async with an_operator(cluster, namespace, tmp_path, "--lease-seconds", "60") as operator:
        await until(lambda: leads(operator))
        assert await operator.end() == 0
        assert not await holder(cluster, namespace)


@pytest_asyncio.fixture(loop_scope="module")
async def alone(cluster, tmp_path):
    """A test API server of one's own to torment, with one operator and one pool."""
    cluster.needs_fake("fail")
    fake = FakeKubernetes()
    async with serving(fake) as port, connected_to(fake, port, tmp_path) as own:
        await own.client.create(SLO_CLASS, chat_class())
        async with an_operator(own, "ns", tmp_path, "--resync-seconds", "2") as operator:
            await own.client.create(POOL, a_pool("ns", "pool"))
            await until(lambda: settled(own, "ns", "pool"))
            yield own, operator


async def test_watches_that_are_cut_or_expire_are_taken_up_again(alone):
    cluster, _ = alone
    for trouble in (cluster.fake.drop_watches, cluster.fake.expire):
        trouble()
        await cluster.client.delete(STATEFUL_SET, "ns", "pool-engine")
        await until(lambda: engines(cluster, "ns", "pool"))


async def test_what_vanished_while_nobody_watched_is_noticed(alone):
    cluster, _ = alone
    await cluster.client.delete(STATEFUL_SET, "ns", "pool-engine")
    cluster.fake.expire()
    await until(lambda: engines(cluster, "ns", "pool"))


@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry-After": "1"}), (409, {}), (500, {}), (503, {})])
async def test_refused_writes_are_tried_again(alone, status, headers):
    cluster, operator = alone
    cluster.fake.fail(3, status, "PATCH /apis/apps", **headers)
    began = time.monotonic()
    await cluster.client.patch(POOL, "ns", "pool", {"spec": {"replicas": 3}})

    async def scaled():
        return (await engines(cluster, "ns", "pool"))["spec"]["replicas"] == 3

    await until(scaled)
    assert not cluster.fake.faults
    assert operator.process.returncode is None
    if "Retry-After" in headers:
        assert time.monotonic() - began > 2.5, "three times a second, as asked"


async def test_the_api_may_be_away(cluster, tmp_path):
    cluster.needs_fake("be away")
    fake = FakeKubernetes()
    async with AsyncExitStack() as later:
        async with serving(fake) as port, connected_to(fake, port, tmp_path) as own:
            await own.client.create(SLO_CLASS, chat_class())
            operator = await later.enter_async_context(an_operator(own, "ns", tmp_path))
            await until(lambda: leads(operator))
        await asyncio.sleep(7.0)  # longer than the lease
        assert not await leads(operator)
        async with serving(fake, port), connected_to(fake, port, tmp_path) as own:
            await own.client.create(POOL, a_pool("ns", "pool"))
            await until(lambda: settled(own, "ns", "pool"), 30)


async def test_many_pools_at_once(cluster, chat, tmp_path):
    namespace, count = await cluster.namespace(), 20
    async with an_operator(cluster, namespace, tmp_path) as operator:
        await until(lambda: leads(operator))
        began = time.monotonic()
        pools = (a_pool(namespace, f"p{n}", classes=[{"name": chat}]) for n in range(count))
        await asyncio.gather(*(cluster.client.create(POOL, pool) for pool in pools))

        async def all_made():
            found = await cluster.client.list(POOL, namespace)
            return all((pool.get("status") or {}).get("conditions") for pool in found)

        await until(all_made, 60)
        assert time.monotonic() - began < 60
        assert len(await cluster.client.list(STATEFUL_SET, namespace)) == count
        if cluster.fake:
            asked = len(cluster.fake.asked)
            await asyncio.sleep(3.0)  # what is asked in this time is what is counted
            assert len(cluster.fake.asked) - asked < count / 2, "at rest it asks for little"
