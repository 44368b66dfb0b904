"""Stands in for kubelets, and on the test API server for the controllers of workloads too: pods that run nothing."""

import random

from tempo_operator.kinds import DEPLOYMENT, POD, STATEFUL_SET


def loopback_address() -> str:
    """One that nobody else listens on: pods are told apart by address, for their ports are given."""
    return f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}"


class FakeKubelet:
    """For the pods of one namespace."""

    def __init__(self, cluster, namespace):
        self.cluster, self.namespace = cluster, namespace

    async def start(self, pool, *, engine_ip="127.0.0.1", router_ip="127.0.0.1"):
        """Have the pool's pods ready, as far as there are any; call it until there are all."""
        workloads = ((STATEFUL_SET, "engine", engine_ip), (DEPLOYMENT, "router", router_ip))
        for kind, part, address in workloads:
            if self.cluster.fake is not None:
                await self._control(kind, f"{pool}-{part}")
            for pod in await self._pods(pool, part):
                await self.set_status(pod["metadata"]["name"], ready_status(pod, address))

    async def set_status(self, pod, status):
        await self.cluster.client.patch(POD, self.namespace, pod, {"status": status}, "status")

    async def pod(self, pool, part="engine"):
        """The first pod of a part, there at last."""
        kind = STATEFUL_SET if part == "engine" else DEPLOYMENT
        if self.cluster.fake is not None:
            await self._control(kind, f"{pool}-{part}", ready=0)
        return next(iter(await self._pods(pool, part)), None)

    async def _pods(self, pool, part):
        selector = f"serving.tempo.dev/pool={pool},app.kubernetes.io/component={part}"
        return await self.cluster.client.list(POD, self.namespace, selector)

    async def _control(self, kind, name, ready=None):
        """What the controller of the workload would do."""
        workload = await self.cluster.client.get(kind, self.namespace, name)
        if workload is None:
            return
        count, metadata = workload["spec"]["replicas"], workload["metadata"]
        for ordinal in range(count):
            if await self.cluster.client.get(POD, self.namespace, f"{name}-{ordinal}") is None:
                await self.cluster.client.create(POD, self._pod(workload, f"{name}-{ordinal}"))
        status = {"replicas": count, "readyReplicas": count if ready is None else ready, "updatedReplicas": count}
        status |= {"observedGeneration": metadata["generation"]}
        await self.cluster.client.patch(kind, self.namespace, name, {"status": status}, "status")

    def _pod(self, workload, name):
        owner = {"apiVersion": "apps/v1", "kind": workload["kind"], "name": workload["metadata"]["name"]}
        owner |= {"uid": workload["metadata"]["uid"], "controller": True}
        template = workload["spec"]["template"]
        metadata = {"name": name, "namespace": self.namespace, "labels": template["metadata"]["labels"]}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata | {"ownerReferences": [owner]},
            "spec": template["spec"],
        }


def ready_status(pod, address):
    """Of a pod that runs."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [_container(name, {"running": {}}, ready=True) for name in names],
    }


def waiting_status(pod, reason):
    """Of a pod whose first container waits for that reason."""
    name = pod["spec"]["containers"][0]["name"]
    return {
        "phase": "Pending",
        "containerStatuses": [_container(name, {"waiting": {"reason": reason, "message": "..."}}, ready=False)],
    }


def unschedulable_status(message):
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def _container(name, state, *, ready):
    return {"name": name, "image": "img", "imageID": "", "ready": ready, "restartCount": 0, "state": state}
