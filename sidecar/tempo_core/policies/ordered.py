"""Policies that only sort: what engines do today."""

from collections.abc import Callable

from tempo_core.snapshot import Entry, Plan, Reason, Snapshot


def fcfs(snapshot: Snapshot, now_s: float) -> Plan:
    """First come, first served; nothing is preempted."""
    del now_s
    return _sorted(snapshot, lambda entry: (not entry.running, entry.job.arrival_s, entry.job.id))


def priority(snapshot: Snapshot, now_s: float) -> Plan:
    """By vLLM's priority number, lower first, then by arrival; nothing is preempted but by the engine for memory."""
    del now_s
    return _sorted(snapshot, lambda entry: (entry.job.priority, entry.job.arrival_s, entry.job.id))


def _sorted(snapshot: Snapshot, key: Callable[[Entry], tuple[object, ...]]) -> Plan:
    order = [entry.job.id for entry in sorted(snapshot.entries, key=key)]
    return Plan(
        order=order,
        preempt=(),
        token_budget=snapshot.max_step_tokens,
        max_running=snapshot.max_running,
        reasons=dict.fromkeys(order, Reason.ARRIVAL),
    )
