"""What a pool's status says. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tempo_operator.conditions import Condition, Problem, Reason, written
from tempo_operator.health import Workload
from tempo_operator.kube import Document
from tempo_operator.measure import Counts, Figures, settled

ATTAINING: Final = 0.9
"""The share of requests that must meet their SLO for the pool to keep its promises..."""
ATTAINING_AGAIN: Final = 0.92
"""...and to be said to keep them again, so that the condition does not flap."""
FIGURES_S: Final = 70.0
"""How often figures alone are worth a write; a pool whose figures never rest costs less than one a minute."""
CLASSES: Final = 64
"""How many a status has room for."""
_STAYS: Final = ("attainment", "gainPerSecond", "queued", "classes")


@dataclass(frozen=True, slots=True)
class State:
    """Everything that a status is made from."""

    engines: Workload
    routers: Workload
    problem: Problem | None
    """The most pressing one."""
    figures: Figures | None
    """None: nobody answered."""
    measured: bool
    """Whether this operator has looked long enough to say; until then what another one said stands."""
    selector: str
    url: str


def next_status(pool: Document, state: State, now: str) -> Document:
    """The status of the pool at `now` (RFC 3339)."""
    before = pool.get("status") or {}
    found = conditions(state, before.get("conditions") or ())
    generation = pool["metadata"].get("generation", 1)
    status: Document = {
        "observedGeneration": generation,
        "replicas": state.engines.present,
        "readyReplicas": state.engines.ready,
        "selector": state.selector,
        "url": state.url,
        "reason": _headline(found).value,
        "conditions": written(found, before.get("conditions") or (), generation, now),
    }
    if state.figures is None:
        return status | {key: before[key] for key in _STAYS if key in before}
    return status | _figures(state.figures)


def worth_writing(new: Document, old: Mapping[str, Any], since_s: float) -> bool:
    """Whether to write it: at once where a state changes, once in a while where only figures do."""
    if new == old:
        return False
    same = all(new.get(key) == old.get(key) for key in {*new, *old} if key not in _STAYS)
    return not same or since_s >= FIGURES_S


def conditions(state: State, before: Iterable[Mapping[str, Any]]) -> list[Condition]:
    """The pool's four conditions."""
    was = next((condition for condition in before if condition["type"] == "Attaining"), None)
    return [
        _ready(state),
        _attaining(state, was),
        _progressing(state),
        _degraded(state.problem),
    ]


def _ready(state: State) -> Condition:
    engines = state.engines
    counted = f"{engines.ready} of {engines.wanted} replicas are ready"
    if engines.wanted == 0 and state.problem is None:
        return Condition("Ready", "False", Reason.SCALED_TO_ZERO, "no replicas are asked for")
    if engines.ready == 0:
        return Condition("Ready", "False", Reason.NO_REPLICA_READY, counted)
    if state.routers.ready == 0:
        return Condition("Ready", "False", Reason.ROUTER_NOT_READY, f"{counted}, but no router is")
    if engines.ready < engines.wanted:
        return Condition("Ready", "True", Reason.SOME_REPLICAS_READY, counted)
    return Condition("Ready", "True", Reason.ALL_REPLICAS_READY, counted)


def _attaining(state: State, was: Mapping[str, Any] | None) -> Condition:
    figures = state.figures
    if not state.measured and was is not None:
        return Condition("Attaining", was["status"], Reason(was["reason"]), was["message"])
    if figures is None:
        return Condition("Attaining", "Unknown", Reason.NO_METRICS, "no router's metrics can be read")
    total = figures.total
    if total.requests == 0:
        return Condition("Attaining", "Unknown", Reason.NO_TRAFFIC, "no requests lately")
    needed = ATTAINING_AGAIN if was is not None and was["status"] == "False" else ATTAINING
    missed = sorted(name for name, counts in figures.classes.items() if counts.attained < needed * counts.requests)
    if total.attained >= needed * total.requests and not missed:
        return Condition("Attaining", "True", Reason.OBJECTIVES_MET)
    return Condition(
        "Attaining", "False", Reason.OBJECTIVES_MISSED, f"fewer than {ATTAINING:.0%} in time: {', '.join(missed)}"
    )


def _progressing(state: State) -> Condition:
    waits = state.engines.ready < state.engines.wanted or state.routers.ready < state.routers.wanted
    if not (waits or state.engines.rolling or state.routers.rolling):
        return Condition("Progressing", "False", Reason.SETTLED)
    if state.problem is not None:
        return Condition("Progressing", "False", Reason.STALLED, state.problem.message)
    return Condition("Progressing", "True", Reason.ROLLING_OUT, "pods are being started or replaced")


def _degraded(problem: Problem | None) -> Condition:
    if problem is None:
        return Condition("Degraded", "False", Reason.AS_EXPECTED)
    return Condition("Degraded", "True", problem.reason, problem.message)


def _headline(found: Iterable[Condition]) -> Reason:
    """The one reason for a column: what is wrong comes before what is well."""
    by_type = {condition.type: condition for condition in found}
    ready, attaining = by_type["Ready"], by_type["Attaining"]
    if by_type["Degraded"].status == "True":
        return by_type["Degraded"].reason
    if by_type["Progressing"].status == "True":
        return by_type["Progressing"].reason
    return attaining.reason if ready.status == "True" and attaining.status == "False" else ready.reason


def _figures(figures: Figures) -> Document:
    seconds = max(figures.seconds, 1.0)
    busy = {name for name, counts in figures.classes.items() if counts.requests}
    named = sorted(busy | {name for name, held in figures.held.items() if held})
    return {
        **_counted(figures.total, seconds),
        "queued": int(settled(figures.waiting)),
        "classes": [_of_class(name, figures, seconds) for name in named[:CLASSES]],
    }


def _of_class(name: str, figures: Figures, seconds: float) -> Document:
    counts, queued = figures.classes.get(name, Counts()), figures.held.get(name, 0)
    whole = {"queued": int(settled(queued)), "dropped": int(settled(counts.dropped))}
    return {"name": name, **_counted(counts, seconds), **whole}


def _counted(counts: Counts, seconds: float) -> Document:
    found: Document = {"gainPerSecond": settled(counts.gain / seconds)}
    if counts.requests:
        # Whatever a pod says: with a share of more than 1 the API would refuse the whole status.
        found["attainment"] = round(min(counts.attained / counts.requests, 1.0), 2)
    return found
