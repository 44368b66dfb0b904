"""What happened to a pool, as Kubernetes events. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from tempo_operator.kube import FIELD_MANAGER, Document

_LONGEST: Final = 1000
"""Characters of a message; the API takes 1,024 bytes."""


@dataclass(frozen=True, slots=True)
class Note:
    """One event."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def transitions(before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]) -> list[Note]:
    """An event for each condition that a person should hear of."""
    old = {condition["type"]: condition for condition in before}
    new = {condition["type"]: condition for condition in after}
    notes: list[Note] = []
    degraded, was = new["Degraded"], old.get("Degraded")
    if degraded["status"] == "True" and (was is None or was["message"] != degraded["message"]):
        notes.append(Note("Warning", degraded["reason"], degraded["message"]))
    elif degraded["status"] == "False" and was is not None and was["status"] == "True":
        notes.append(Note("Normal", "Recovered", f"no longer: {was['message']}"))
    for kind in ("Ready", "Attaining"):
        then, now = old.get(kind, {}).get("status", "Unknown"), new[kind]["status"]
        if now == "True" != then:
            notes.append(Note("Normal", kind, new[kind]["message"] or new[kind]["reason"]))
        elif now == "False" and then == "True":
            notes.append(Note("Warning", new[kind]["reason"], new[kind]["message"]))
    return notes


def event(regarding: Document, note: Note, reporter: str, now: str) -> Document:
    """The event as the API takes it."""
    metadata = regarding["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "type": note.type,
        "reason": note.reason,
        "message": note.message[:_LONGEST],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "reportingInstance": reporter,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
