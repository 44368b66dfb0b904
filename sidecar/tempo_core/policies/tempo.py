"""Tempo: serve first what loses most by waiting, for the engine time that it takes.

1. *Outlook.* For every request: expected gain, engine time, slack, whether its target can still be met, and what it
   loses (gain, and the promise) by waiting until the latest would start, if all went by least slack.
2. *Rank.* The aged lane first, then by that loss for each second of engine time; by least slack, where there is none.
   Where the pool asks for fairness, mixed with how much more its tenant has been served than others.
3. *Batch.* A step serves the streams that are on time at their pace, which limits places and prefill.
4. *Preempt.* What was promised nothing, where a request would lose its promise by waiting for the next place, and that
   is more than its victim loses behind all the work at hand; and what is late, for a program with tools that is worth
   more a second. Recompute and a margin are included.

The paper ranks by density of gain alone (arXiv 2504.20068, section 4); why what is *lost by waiting* stands in its
place is in docs/decisions/0003-rank-by-what-waiting-loses.md.
"""

from collections.abc import Sequence

import numpy as np

from tempo_core.density import Indices, Outlook, outlook
from tempo_core.snapshot import Plan, Reason, Settings, Snapshot
from tempo_core.tenants import OUTPUT_WEIGHT


def tempo(snapshot: Snapshot, now_s: float) -> Plan:
    """Order every entry exactly once, preempt running ones only; ties go to the earlier arrival, then the first."""
    if not snapshot.entries:
        return Plan((), (), snapshot.max_step_tokens, snapshot.max_running, {})
    view = outlook(snapshot, now_s)
    aged = _aged_lane(snapshot, view, now_s)
    rank = _rank(snapshot, view, aged)
    places, budget = _batch(snapshot, view)
    ids = [entry.job.id for entry in snapshot.entries]
    return Plan(
        order=[ids[i] for i in _decodes_first(view, rank)],
        preempt=[ids[i] for i in _preempt(snapshot.settings, view, aged, rank, places)],
        token_budget=budget,
        max_running=places,
        reasons=dict(zip(ids, _reasons(view, aged, rank), strict=True)),
    )


def _aged_lane(snapshot: Snapshot, view: Outlook, now_s: float) -> list[int]:
    """Indices in the aged lane, oldest first: bounded waiting for what nothing else would ever choose.

    The lane belongs to the oldest requests that are past the pool's patience and can't be on time any more, whether
    they run or wait. Nothing can enter it before one that waits in it, and who runs in it is not preempted, so whoever
    is next in line waits for one service time a place. A share of less than one place is one place that opens for this
    share of the time, once in each span of patience; whoever runs then stays.
    """
    settings = snapshot.settings
    share = snapshot.max_running * settings.aged_share
    past = np.flatnonzero((now_s - view.arrival > settings.patience_s) & ~view.attainable)
    oldest = past[np.argsort(view.arrival[past], kind="stable")[: max(1, int(share))]]
    if now_s % settings.patience_s >= share * settings.patience_s:
        oldest = oldest[view.running[oldest]]
    lane: list[int] = oldest.tolist()
    return lane


def _rank(snapshot: Snapshot, view: Outlook, aged: list[int]) -> Indices:
    """Indices of all entries, those that deserve service most first; by slack, where nothing is lost by waiting."""
    loss = view.loss_density.copy()
    loss[aged] = np.inf
    order: Indices = np.lexsort((view.arrival, view.slack_s, -loss))
    return _mixed(snapshot, view, aged, order) if snapshot.settings.fairness and snapshot.served else order


def _mixed(snapshot: Snapshot, view: Outlook, aged: list[int], order: Indices) -> Indices:
    """The order, mixed with the lead of each request's tenant over the least served; the aged lane stays as it is.

    Both are counted in batches, one of which is half of all: as many requests before it, or a lead of what the batch
    holds, which is how far tenants come apart even where they take turns (VTC, theorem 4.4).
    """
    share, served = snapshot.settings.fairness, snapshot.served
    before = np.arange(len(order), dtype=np.float64)
    lead = np.array([served.get(entry.job.tenant, 0.0) for entry in snapshot.entries])[order]
    lead -= lead.min()
    behind = (1.0 - share) * before / (before + snapshot.max_running)
    behind += share * lead / (lead + max(OUTPUT_WEIGHT * view.context_tokens, 1.0))
    behind[: len(aged)] = -1.0
    mixed: Indices = order[np.argsort(behind, kind="stable")]
    return mixed


def _decodes_first(view: Outlook, rank: Indices) -> list[int]:
    """Indices in the order in which a step serves them.

    What is decoding takes one token of the step's budget each; a prefill before it would stall it for nothing. Whether
    it keeps its place is for preemption to decide.
    """
    decoding = view.decoding[rank]
    order: list[int] = np.concatenate((rank[decoding], rank[~decoding])).tolist()
    return order


def _batch(snapshot: Snapshot, view: Outlook) -> tuple[int, int]:
    """Places and tokens of a step that serves the streams that are on time at their pace.

    No more places than a step within the tightest time between tokens can decode, and no more prefill than ends before
    the first token is due: a stream ahead of its pace leaves room to fill the batch, one behind gets short steps.
    """
    settings, step = snapshot.settings, snapshot.step_time
    streams = view.decoding & view.attainable
    tbt_s = settings.tbt_headroom * float(np.min(view.tbt_s[streams], initial=np.inf))
    if tbt_s == np.inf or tbt_s <= step.seconds(1, settings.min_prefill_tokens):
        return snapshot.max_running, snapshot.max_step_tokens  # no stream at hand, or a pace that can't be kept
    decoding = int(view.decoding.sum())
    each_s = step.per_sequence_s + step.per_context_token_s * view.context_tokens / decoding
    places = (tbt_s - step.seconds(0, settings.min_prefill_tokens)) / max(each_s, 1e-9)
    until_s = settings.tbt_headroom * float(np.min(view.next_due_s[streams]))
    prefill = (until_s - step.seconds(decoding, 0, view.context_tokens)) / step.per_prefill_token_s
    budget = decoding + max(settings.min_prefill_tokens, int(min(prefill, snapshot.max_step_tokens)))
    return int(np.clip(places, 1, snapshot.max_running)), min(budget, snapshot.max_step_tokens)


def _preempt(settings: Settings, view: Outlook, aged: list[int], rank: Indices, places: int) -> Sequence[int]:
    """Indices to take off the batch, so that requests which can be on time and lack a place get one.

    What runs and can keep its promise stays: to guess which of two promises is worth more cost more of both than it
    gained, because what is cut off has been paid for. Best effort makes room for all, what is late for programs with
    tools alone: they have a place to win back after each tool, and only the time that the tools leave them.
    """
    running = rank[view.running[rank]]
    best, rest = rank[:places], rank[max(places, len(aged)) :]
    on_time = view.attainable & (view.slack_s >= 0.0) & ~view.running
    newcomers = best[on_time[best]][max(places - len(running), 0) :]
    victims = rest[view.running[rest] & ~view.attainable[rest]]
    if not len(newcomers) or not len(victims):
        return ()
    late = view.targeted[victims]
    going = _best_effort_that_goes(settings, view, running, newcomers, victims[~late])
    programs = newcomers[len(going) :]  # the places that this frees go by rank
    return going + _late_that_go(settings, view, running, programs[view.all_to_lose[programs]], victims[late])


def _best_effort_that_goes(
    settings: Settings, view: Outlook, running: Indices, newcomers: Indices, victims: Indices
) -> list[int]:
    """Those that lose less by going than newcomers do by waiting for the next place.

    Each newcomer would otherwise get one as those who run end, at the rate at which they are expected to. A victim is
    taken to wait behind all the work at hand, as it is in the order, and its recompute costs what the batch earns in
    that time.
    """
    waits_s = np.full(len(view.gain), view.work_s)
    waits_s[newcomers] = np.arange(1, len(newcomers) + 1) / (1.0 / view.run_s[running]).sum()
    loss = view.loss_after(waits_s)
    earns = float(view.gain[running].sum() / view.cost_s[running].sum())
    price = (1.0 + settings.preempt_margin) * (loss + earns * view.recompute_s)
    newcomers = newcomers[np.argsort(-loss[newcomers], kind="stable")]
    victims = victims[np.argsort(price[victims], kind="stable")]
    pairs = min(len(newcomers), len(victims))
    going: list[int] = victims[:pairs][loss[newcomers[:pairs]] > price[victims[:pairs]]].tolist()
    return going


def _late_that_go(
    settings: Settings, view: Outlook, running: Indices, newcomers: Indices, victims: Indices
) -> list[int]:
    """The least dense first, for the densest newcomers, where that saves more than it costs.

    It saves the difference of their densities for the newcomer's engine time, and costs what the batch saves in the
    time of the victim's recompute. Density is of what is lost by waiting.
    """
    density = view.loss_density
    victims = victims[np.argsort(density[victims], kind="stable")]
    pairs = min(len(newcomers), len(victims))
    newcomers, victims = newcomers[:pairs], victims[:pairs]
    saves = (density[newcomers] - density[victims]) * view.own_cost_s[newcomers]
    earns = float(density[running] @ view.cost_s[running] / view.cost_s[running].sum())
    going: list[int] = victims[saves > (1.0 + settings.preempt_margin) * earns * view.recompute_s[victims]].tolist()
    return going


def _reasons(view: Outlook, aged: list[int], rank: Indices) -> list[Reason]:
    names = (Reason.NO_TARGET, Reason.LATE, Reason.DEFERRED, Reason.ON_TIME, Reason.AGED)
    ahead_s = np.empty(len(rank))
    ahead_s[rank] = np.cumsum(view.own_cost_s[rank]) - view.own_cost_s[rank]
    deferred = ~view.running & (np.maximum(view.slack_s, 0.0) < ahead_s)
    code = np.select([~view.targeted, ~view.expected, deferred], [0, 1, 2], 3)
    code[aged] = 4
    return [names[c] for c in code.tolist()]
