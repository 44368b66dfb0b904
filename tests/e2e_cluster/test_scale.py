"""How fast, how many, and what it costs at rest. The figures: pytest --log-cli-level=INFO."""

import asyncio
import logging
import statistics
import time

import pytest

from support.k8s.cluster import an_operator
from support.k8s.samples import a_pool
from support.processes import until
from tempo_operator.kinds import POOL, STATEFUL_SET

log = logging.getLogger(__name__)
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_pool_has_its_engines_within_a_second(cluster, chat, tmp_path):
    namespace, took_s = await cluster.namespace(), []
    async with an_operator(cluster, namespace, tmp_path) as operator:
        await until(lambda: leads(operator))
        for n in range(15):
            began = time.monotonic()
            await cluster.client.create(POOL, a_pool(namespace, f"p{n}", classes=[{"name": chat}]))
            await until(lambda n=n: cluster.client.get(STATEFUL_SET, namespace, f"p{n}-engine"))
            took_s.append(time.monotonic() - began)
    log.info("from pool to StatefulSet: p50 %.2f s, worst %.2f s", statistics.median(took_s), max(took_s))
    # The test API server is in Python, and shares its machine with other tests.
    assert statistics.median(took_s) < (3.0 if cluster.fake else 1.0)


@pytest.mark.timeout(600)  # a real control plane's own controllers take minutes to come to rest
async def test_many_pools_at_once_and_then_hardly_a_request(cluster, chat, tmp_path):
    """Two hundred on a real control plane."""
    namespace, count, rest_s = await cluster.namespace(), *((30, 15.0) if cluster.fake else (200, 60.0))
    async with an_operator(cluster, namespace, tmp_path, "--lease-seconds", "20") as operator:
        await until(lambda: leads(operator))
        began = time.monotonic()
        pools = (a_pool(namespace, f"p{n}", classes=[{"name": chat}]) for n in range(count))
        await asyncio.gather(*(cluster.client.create(POOL, pool) for pool in pools))

        async def all_told():
            await asyncio.sleep(0.5)  # for asking costs the API too
            found = await cluster.client.list(POOL, namespace)
            return all((pool.get("status") or {}).get("conditions") for pool in found)

        await until(all_told, 90)
        took_s = time.monotonic() - began
        assert len(await cluster.client.list(STATEFUL_SET, namespace)) == count
        await cluster.at_rest(namespace, *((2.0, 60.0) if cluster.fake else (20.0, 300.0)))
        before = await operator.requests()
        await asyncio.sleep(rest_s)  # what is asked in this time is what is counted
        each = (await operator.requests() - before) / count * 60 / rest_s
    log.info("%d pools: %.1f s until all have a status; then %.2f requests a pool and minute", count, took_s, each)
    assert took_s < 60
    assert each < 1.0


async def leads(operator):
    return (await operator.state()).get("leading")
