"""Small policies for tests of what carries a plan out."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tempo_core.snapshot import Entry, Plan, Reason, Snapshot


def plan(
    snapshot: Snapshot,
    order: Sequence[Entry] | None = None,
    *,
    preempt: Iterable[str] = (),
    token_budget: int | None = None,
    max_running: int | None = None,
) -> Plan:
    """A plan in this order, by default the snapshot's."""
    ids = [entry.job.id for entry in (snapshot.entries if order is None else order)]
    return Plan(
        order=ids,
        preempt=tuple(preempt),
        token_budget=snapshot.max_step_tokens if token_budget is None else token_budget,
        max_running=snapshot.max_running if max_running is None else max_running,
        reasons=dict.fromkeys(ids, Reason.ARRIVAL),
    )


def ordered(key: Callable[[Entry], Any], **parts: Any) -> Callable[[Snapshot, float], Plan]:
    """A policy that sorts by `key`."""
    return lambda snapshot, _: plan(snapshot, sorted(snapshot.entries, key=key), **parts)
