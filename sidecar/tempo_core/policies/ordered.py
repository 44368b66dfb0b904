"""Policies that only sort, by facts that never change: arrival, a number, a deadline."""

from collections.abc import Callable
from math import inf

from tempo_core.policies.plans import displaced, make_plan
from tempo_core.slo import Pattern
from tempo_core.snapshot import Entry, Job, Plan, Reason, Snapshot


def fcfs(snapshot: Snapshot, now_s: float) -> Plan:
    """First come, first served; nothing is preempted. What vLLM does by default (arXiv 2309.06180)."""
    del now_s
    return _sorted(snapshot, lambda entry: (not entry.running, entry.job.arrival_s, entry.job.id))


def priority(snapshot: Snapshot, now_s: float) -> Plan:
    """By vLLM's priority number, lower first, then by arrival; nothing is preempted but by the engine for memory."""
    del now_s
    return _sorted(snapshot, lambda entry: (entry.job.priority, entry.job.arrival_s, entry.job.id))


def edf(snapshot: Snapshot, now_s: float) -> Plan:
    """Earliest deadline first, preemptive (Liu and Layland, 1973).

    Deadlines are fixed: a stream's is that of its first token, and stays when that is out, so that a stream that has
    begun goes on; everything else's is that of its last token; best effort has none. Nobody is given up: as in the
    classic, who is late goes first. Recompute isn't priced, but a deadline displaces a later one at most once.
    """
    del now_s
    rank = sorted(snapshot.entries, key=lambda entry: (deadline_s(entry.job), not entry.running, *arrival(entry)))
    return make_plan(snapshot, rank, preempt=displaced(rank, snapshot.max_running))


def deadline_s(job: Job) -> float:
    """By when it must have brought its first token (a stream) or its last (all others), absolute; inf: no target."""
    return job.arrival_s + job.slo.objectives.ttft_s if job.slo.pattern is Pattern.LATENCY else job.deadline_s


def arrival(entry: Entry) -> tuple[float, str]:
    """The key that breaks ties: by arrival, then by id."""
    return entry.job.arrival_s, entry.job.id


def waited_s(entry: Entry, now_s: float) -> float:
    """How long it has waited for a place this time, in seconds; 0 while it runs."""
    if entry.running:
        return 0.0
    since_s = entry.waiting_since_s
    return now_s - (since_s if since_s < inf else entry.job.arrival_s)  # nan is not less than anything


def _sorted(snapshot: Snapshot, key: Callable[[Entry], tuple[object, ...]]) -> Plan:
    order = [entry.job.id for entry in sorted(snapshot.entries, key=key)]
    return Plan(
        order=order,
        preempt=(),
        token_budget=snapshot.max_step_tokens,
        max_running=snapshot.max_running,
        reasons=dict.fromkeys(order, Reason.ARRIVAL),
    )
