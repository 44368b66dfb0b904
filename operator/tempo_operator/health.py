"""How a pool's workloads and pods are: counted from what Kubernetes says of them. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tempo_operator.conditions import Problem, Reason

_NO_IMAGE: Final = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_NO_CONFIG: Final = "CreateContainerConfigError"
"""A Secret or ConfigMap that is not there, or has not the key; the message says which."""
_CRASHED: Final = {"CrashLoopBackOff", "CreateContainerError", "RunContainerError"}


@dataclass(frozen=True, slots=True)
class Workload:
    """A StatefulSet or Deployment."""

    wanted: int = 0
    present: int = 0
    ready: int = 0
    rolling: bool = False
    """Whether pods of an older version are still to be replaced, or its controller has not looked yet."""


def workload(document: Mapping[str, Any] | None) -> Workload:
    """What its status says; nothing of one that is not there yet."""
    if document is None:
        return Workload()
    status, wanted = document.get("status") or {}, document["spec"].get("replicas", 1)
    seen = status.get("observedGeneration", 0) >= document["metadata"].get("generation", 0)
    updated = status.get("updatedReplicas", 0)
    if status.get("currentRevision") and status["currentRevision"] == status.get("updateRevision"):
        updated = wanted  # a StatefulSet at rest counts no updated pods
    return Workload(
        wanted=wanted,
        present=status.get("replicas", 0),
        ready=status.get("readyReplicas", 0),
        rolling=not seen or updated < wanted,
    )


def pod_problem(pods: Iterable[Mapping[str, Any]]) -> Problem | None:
    """What keeps a pod from starting, of the first pod by name that has such a problem.

    The texts leave out whatever Kubernetes changes from one attempt to the next.
    """
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        if problem := _container_problem(pod) or _scheduling_problem(pod):
            return problem
    return None


def _container_problem(pod: Mapping[str, Any]) -> Problem | None:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        why = waiting.get("reason")
        where = f"pod {name}: container {container['name']}"
        if why in _NO_IMAGE:
            text = (
                f"{where}: image {container.get('image', '')} can't be pulled ({why}); check its name and pull secrets"
            )
            return Problem(Reason.IMAGE_UNAVAILABLE, text)
        if why == _NO_CONFIG:
            return Problem(Reason.CRASHING, f"{where} can't be made ({why}): {waiting.get('message', '')}")
        if why in _CRASHED:
            text = f"{where} does not stay up ({why}); see: kubectl logs {name} -c {container['name']} --previous"
            return Problem(Reason.CRASHING, text)
    return None


def _scheduling_problem(pod: Mapping[str, Any]) -> Problem | None:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            message = str(condition.get("message", ""))
            gpus = "gpu" in message.lower() and "insufficient" in message.lower()
            reason = Reason.INSUFFICIENT_GPUS if gpus else Reason.UNSCHEDULABLE
            return Problem(reason, f"pod {pod['metadata']['name']} waits for a node: {message}")
    return None
