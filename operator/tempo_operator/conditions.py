"""Conditions, as every Kubernetes tool reads them, and the closed list of their reasons. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

_LONGEST: Final = 2000
"""Characters of a message: an API server that refuses an object may quote it whole."""


class Reason(StrEnum):
    """Why a condition is as it is. Nothing else is ever written."""

    # Ready
    ALL_REPLICAS_READY = "AllReplicasReady"
    SOME_REPLICAS_READY = "SomeReplicasReady"
    NO_REPLICA_READY = "NoReplicaReady"
    ROUTER_NOT_READY = "RouterNotReady"
    SCALED_TO_ZERO = "ScaledToZero"
    # Attaining
    OBJECTIVES_MET = "ObjectivesMet"
    OBJECTIVES_MISSED = "ObjectivesMissed"
    NO_TRAFFIC = "NoTraffic"
    NO_METRICS = "NoMetrics"
    # Progressing
    ROLLING_OUT = "RollingOut"
    STALLED = "Stalled"
    SETTLED = "Settled"
    # Degraded
    AS_EXPECTED = "AsExpected"
    INVALID_SPEC = "InvalidSpec"
    CLASS_NOT_FOUND = "ClassNotFound"
    INVALID_CLASS = "InvalidClass"
    NAME_CONFLICT = "NameConflict"
    APPLY_REFUSED = "ApplyRefused"
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    CRASHING = "Crashing"
    INSUFFICIENT_GPUS = "InsufficientGPUs"
    UNSCHEDULABLE = "Unschedulable"
    SCHEDULER_FALLBACK = "SchedulerFallback"
    # Accepted, of a class
    ACCEPTED = "Accepted"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that needs a person, in one sentence."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, as found now."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: Reason
    message: str = ""


def written(
    found: Iterable[Condition], before: Iterable[Mapping[str, Any]], generation: int, now: str
) -> list[dict[str, Any]]:
    """`found` as it goes into a status; the time is that of the last change of `status`, as the convention wants.

    Args:
        found: the conditions now.
        before: those that stand in the status.
        generation: of the spec that they were found for.
        now: RFC 3339.

    """
    old = {condition["type"]: condition for condition in before}
    return [
        {
            "type": condition.type,
            "status": condition.status,
            "reason": condition.reason.value,
            "message": condition.message[:_LONGEST],
            "observedGeneration": generation,
            "lastTransitionTime": now
            if old.get(condition.type, {}).get("status") != condition.status
            else old[condition.type]["lastTransitionTime"],
        }
        for condition in found
    ]
