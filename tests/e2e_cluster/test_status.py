"""What a pool's status and events say."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from support.k8s.kubelet import FakeKubelet, loopback_address, unschedulable_status, waiting_status
from support.k8s.samples import a_pool
from support.processes import until
from tempo_operator.kinds import EVENT, POOL

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("operator")]


@pytest.fixture
def kubelet(cluster, namespace):
    return FakeKubelet(cluster, namespace)


async def status(cluster, namespace, name):
    return (await cluster.client.get(POOL, namespace, name)).get("status") or {}


async def reason(cluster, namespace, name, type_):
    conditions = (await status(cluster, namespace, name)).get("conditions") or []
    return next((c["reason"] for c in conditions if c["type"] == type_), "")


@asynccontextmanager
async def metrics_page(address, port, page):
    """What a router or sidecar would say."""

    async def metrics(_):
        return web.Response(text=page())

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    yield
    await runner.cleanup()


async def test_a_pool_is_ready_once_its_pods_are(cluster, namespace, chat, name, kubelet):
    await cluster.client.create(POOL, a_pool(namespace, name, replicas=2, classes=[{"name": chat}]))

    async def ready():
        await kubelet.start(name)
        return await reason(cluster, namespace, name, "Ready") == "AllReplicasReady"

    await until(ready)
    found = await status(cluster, namespace, name)
    assert (found["replicas"], found["readyReplicas"]) == (2, 2)
    assert found["reason"] == "AllReplicasReady"
    assert found["url"].startswith(f"http://{name}-router.{namespace}")


async def test_attainment_gain_queue_and_drops_come_from_routers_and_sidecars(cluster, namespace, chat, name, kubelet):
    router, sidecar = loopback_address(), loopback_address()
    done = iter(range(0, 10**6, 100))

    def router_page():
        total = next(done)
        return (
            f'tempo_router_requests_total{{slo_class="{chat}",outcome="completed"}} {total}\n'
            f'tempo_router_requests_total{{slo_class="{chat}",outcome="saturated"}} {total / 10}\n'
            f'tempo_router_held{{slo_class="{chat}"}} 4\n'
            f'tempo_router_attained_total{{slo_class="{chat}"}} {total * 0.5}\n'
            f'tempo_router_gain_total{{slo_class="{chat}"}} {total * 3.0}\n'
        )

    pool = a_pool(namespace, name, classes=[{"name": chat}], router={"replicas": 1})
    await cluster.client.create(POOL, pool)
    async with (
        metrics_page(router, 8000, router_page),
        metrics_page(sidecar, 8001, lambda: "tempo_engine_waiting 7.0\n"),
    ):

        async def missed():
            await kubelet.start(name, engine_ip=sidecar, router_ip=router)
            return await reason(cluster, namespace, name, "Attaining") == "ObjectivesMissed"

        await until(missed)
        found = await status(cluster, namespace, name)
    assert found["attainment"] == 0.45
    assert found["gainPerSecond"] > 0
    assert found["queued"] == 11
    [of_chat] = found["classes"]
    assert (of_chat["name"], of_chat["attainment"], of_chat["queued"]) == (chat, 0.45, 4)
    assert of_chat["gainPerSecond"] > 0
    assert of_chat["dropped"] > 0


async def test_an_image_that_never_comes_is_a_condition_and_an_event(cluster, namespace, chat, name, kubelet):
    await cluster.client.create(POOL, a_pool(namespace, name, classes=[{"name": chat}]))
    pod = await first_pod(kubelet, name)
    await kubelet.set_status(pod["metadata"]["name"], waiting_status(pod, "ImagePullBackOff"))

    async def degraded():
        return await reason(cluster, namespace, name, "Degraded") == "ImageUnavailable"

    await until(degraded)

    async def said():
        events = await cluster.client.list(EVENT, namespace)
        found = {(event["type"], event["reason"], event["involvedObject"]["name"]) for event in events}
        return ("Warning", "ImageUnavailable", name) in found

    await until(said)


async def test_too_few_gpus_are_a_condition(cluster, namespace, chat, name, kubelet):
    await cluster.client.create(POOL, a_pool(namespace, name, classes=[{"name": chat}]))
    pod = await first_pod(kubelet, name)
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    await kubelet.set_status(pod["metadata"]["name"], unschedulable_status(message))

    async def degraded():
        return await reason(cluster, namespace, name, "Degraded") == "InsufficientGPUs"

    await until(degraded)
    assert await reason(cluster, namespace, name, "Progressing") == "Stalled"


async def test_a_status_in_which_nothing_changes_is_not_written(cluster, namespace, chat, name):
    await cluster.client.create(POOL, a_pool(namespace, name, classes=[{"name": chat}]))
    await until(lambda: reason(cluster, namespace, name, "Attaining"))
    await cluster.at_rest(namespace)
    before = await cluster.client.get(POOL, namespace, name)
    await asyncio.sleep(1.5)  # three looks
    after = await cluster.client.get(POOL, namespace, name)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def first_pod(kubelet, name):
    found = []

    async def there():
        found[:] = [await kubelet.pod(name)]
        return found[0]

    await until(there)
    return found[0]
