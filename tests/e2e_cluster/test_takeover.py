"""Operators that end, begin again, and take over from each other."""

import asyncio
import signal
import time
from dataclasses import replace

import pytest

from support.k8s.cluster import an_operator
from support.k8s.proxy import proxying
from support.k8s.samples import a_pool
from support.processes import until
from tempo_operator.kinds import EVENT, LEASE, POOL, STATEFUL_SET

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def holder(cluster, namespace):
    lease = await cluster.client.get(LEASE, namespace, "tempo-operator")
    return lease and lease["spec"]["holderIdentity"]


async def leads(operator):
    return (await operator.state()).get("leading")


async def made(cluster, namespace, chat, count=1):
    """Pools with everything that belongs to them, once nothing about them changes any more."""
    for n in range(count):
        await cluster.client.create(POOL, a_pool(namespace, f"p{n}", classes=[{"name": chat}]))

    async def measured():
        found = await cluster.client.list(POOL, namespace)
        said = [{c["reason"] for c in (pool.get("status") or {}).get("conditions", ())} for pool in found]
        return all("NoMetrics" in reasons for reasons in said)

    await until(measured)
    return await cluster.at_rest(namespace)


async def test_a_restart_changes_nothing_in_a_settled_cluster(cluster, chat, tmp_path):
    namespace = await cluster.namespace()
    async with an_operator(cluster, namespace, tmp_path, "--look-seconds", "0.3") as operator:
        before = await made(cluster, namespace, chat, 3)
        assert await operator.end() == 0
    async with proxying(cluster.info, tmp_path / "proxy") as proxy:
        behind = replace(cluster, kubeconfig=tmp_path / "proxy")
        async with an_operator(behind, namespace, tmp_path, "--look-seconds", "0.3") as operator:
            await until(lambda: leads(operator))
            await asyncio.sleep(1.5)  # several looks at what it found
    assert await cluster.versions(namespace) == before
    assert [path for _, path in proxy.writes("") if "leases" not in path] == [], "not even in vain"
    events = await cluster.client.list(EVENT, namespace)
    assert not [event for event in events if event["reason"] == "DriftRepaired"]


async def test_of_two_operators_one_acts_and_the_other_takes_over(cluster, chat, tmp_path):
    namespace = await cluster.namespace()
    async with proxying(cluster.info, tmp_path / "proxy") as proxy:
        behind = replace(cluster, kubeconfig=tmp_path / "proxy")
        terms = ("--lease-seconds", "5")
        async with (
            an_operator(behind, namespace, tmp_path, *terms) as one,
            an_operator(behind, namespace, tmp_path, *terms) as other,
        ):
            both = (one, other)
            await until(lambda: holder(cluster, namespace))
            await made(cluster, namespace, chat)
            states = [await operator.state() for operator in both]
            assert sorted(state["leading"] for state in states) == [False, True]
            assert all(state["ready"] for state in states)
            applied = [path for method, path in proxy.writes("p0") if method == "PATCH" and "status" not in path]
            assert sorted(applied) == sorted(set(applied)), "written once each"
            leader, follower = sorted(both, key=lambda operator: states[both.index(operator)]["leading"], reverse=True)
            leader.process.send_signal(signal.SIGKILL)
            began = time.monotonic()
            await cluster.client.delete(STATEFUL_SET, namespace, "p0-engine")
            await until(lambda: leads(follower), 30)
            await until(lambda: cluster.client.get(STATEFUL_SET, namespace, "p0-engine"))
            assert time.monotonic() - began < 20, "leases are 5 seconds here, 20 by default: then it is under 30"


async def test_an_operator_that_is_killed_is_followed_within_half_a_minute(cluster, tmp_path):
    """By the terms that everybody gets who asks for no others."""
    namespace = await cluster.namespace()
    terms = ("--lease-seconds", "20")
    async with an_operator(cluster, namespace, tmp_path, *terms) as one:
        await until(lambda: leads(one))
        async with an_operator(cluster, namespace, tmp_path, *terms) as other:
            one.process.send_signal(signal.SIGKILL)
            began = time.monotonic()
            await until(lambda: leads(other), 40)
            assert time.monotonic() - began < 30


async def test_an_operator_that_is_asked_to_end_hands_over_at_once(cluster, tmp_path):
    namespace = await cluster.namespace()
    async with an_operator(cluster, namespace, tmp_path, "--lease-seconds", "60") as operator:
        await until(lambda: leads(operator))
        assert await operator.end() == 0
        assert not await holder(cluster, namespace)
