"""Request groups in the order that their estimated waiting times allow: QLM (SoCC'24, arXiv 2407.00047)."""

from typing import Final, NamedTuple

import numpy as np

from tempo_core.density import Outlook, outlook
from tempo_core.policies.ordered import arrival
from tempo_core.policies.plans import make_plan
from tempo_core.snapshot import Entry, Plan, Reason, Snapshot

GROUP_BATCHES: Final = 4
"""A group is at most this many full batches, so that one decision is about many requests."""


class _Group(NamedTuple):
    members: list[int]
    slack_s: float
    """How long its median member can wait."""
    work_s: float
    """Engine time that it takes: its expected tokens at the engine's rate."""


def qlm(snapshot: Snapshot, now_s: float) -> Plan:
    """Groups of alike requests, earliest deadline first, those put off that the waiting times don't allow.

    Waiting requests of one class and about one time are a group, first come first served inside. A group's waiting time
    is the expected work ahead of it at the engine's rate (QLM's RWT estimator). Running requests are evicted for the
    first group's, where these would be late by waiting for a place and those can wait behind all the work at hand.

    QLM orders the groups of many engines and models with a linear program that minimises lateness against their
    deadlines. One engine and one model leave the order of one queue: earliest deadline first, and while a group's wait
    would exceed its slack, the longest group up to there goes behind (Moore-Hodgson). Not modelled: swapping models,
    balancing engines, and eviction to host memory (here it recomputes).
    """
    if not snapshot.entries:
        return make_plan(snapshot, ())
    view = outlook(snapshot, now_s)
    kept, put_off = _sequence(_groups(snapshot, view))
    entries = snapshot.entries
    running = sorted((entry for entry in entries if entry.running), key=arrival)
    order = [entries[i] for group in (*kept, *put_off) for i in group.members]
    preempt = _evictions(snapshot, view, kept[0].members if kept else [])
    reasons = {entries[i].job.id: Reason.DEFERRED for group in put_off for i in group.members}
    return make_plan(snapshot, [*running, *order], preempt=preempt, reasons=reasons)


def _groups(snapshot: Snapshot, view: Outlook) -> list[_Group]:
    entries, size = snapshot.entries, GROUP_BATCHES * snapshot.max_running
    by_class: dict[str, list[int]] = {}
    for index in sorted(np.flatnonzero(~view.running).tolist(), key=lambda i: arrival(entries[i])):
        by_class.setdefault(entries[index].job.slo.name, []).append(index)
    parts = [found[i : i + size] for found in by_class.values() for i in range(0, len(found), size)]
    return [_Group(p, float(np.median(view.slack_s[p])), float(view.own_cost_s[p].sum())) for p in parts]


def _sequence(groups: list[_Group]) -> tuple[list[_Group], list[_Group]]:
    """The groups that are served in time, earliest deadline first, and those that are put off for them, likewise.

    A group is in time if its median member is, which starts halfway through it.
    """
    kept: list[_Group] = []
    put_off: list[_Group] = []
    ahead_s = 0.0
    for group in sorted(groups, key=lambda group: group.slack_s):
        kept.append(group)
        if ahead_s + group.work_s / 2 > group.slack_s:
            longest = max(kept, key=lambda group: group.work_s)
            kept.remove(longest)
            put_off.append(longest)
            ahead_s -= longest.work_s
        ahead_s += group.work_s
    return kept, sorted(put_off, key=lambda group: group.slack_s)


def _evictions(snapshot: Snapshot, view: Outlook, head: list[int]) -> list[Entry]:
    """Running requests that make room for those of the head group that would be late by waiting for a place."""
    if not head or not view.running.any():
        return []
    free = max(snapshot.max_running - int(view.running.sum()), 0)
    next_place_s = 1.0 / float((1.0 / view.run_s[view.running]).sum())
    lacking = head[free:]
    turn_s = next_place_s * np.arange(1, len(lacking) + 1)
    slack_s = view.slack_s[lacking]
    urgent = int(((slack_s >= 0.0) & (slack_s < turn_s)).sum())
    can_wait = np.flatnonzero(view.running & (view.slack_s > view.work_s + view.recompute_s))
    dearest_last = can_wait[np.argsort(view.recompute_s[can_wait], kind="stable")]
    return [snapshot.entries[i] for i in dearest_last[:urgent].tolist()]
