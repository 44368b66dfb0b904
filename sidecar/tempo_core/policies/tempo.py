"""Tempo: keep on time what can be kept on time, and choose what that is by the gain that waiting would lose.

1. *Outlook.* For every request: expected gain now, expected gain behind all the work at hand, engine time, slack,
   whether its target can still be met.
2. *Keep.* Of those whose target can be met, the set that fits: in order of due time, engine time is added up, and where
   it no longer fits, what loses least by waiting, for its engine time, is deferred (the Moore-Hodgson rule).
3. *Rank.* The aged lane first, then what is kept and can't wait for all the work at hand, then the rest, each by the
   gain that waiting loses for each second of engine time. While every target can be met: by least slack, just in time.
4. *Batch.* A step serves the kept streams at their pace, which limits places and prefill.
5. *Preempt.* Only where a kept request loses more by waiting for the next place than its victim does by giving its own
   up, the recompute and a margin included.

The paper ranks by density of gain alone (arXiv 2504.20068, section 4); why the gain *lost by waiting* stands in its
place is in docs/decisions/0003-rank-by-the-gain-that-waiting-loses.md.
"""

import heapq
from collections.abc import Sequence

import numpy as np

from tempo_core.density import Indices, Mask, Outlook, outlook
from tempo_core.snapshot import Plan, Reason, Settings, Snapshot


def tempo(snapshot: Snapshot, now_s: float) -> Plan:
    """Order every entry exactly once, preempt running ones only; ties go to the earlier arrival, then the first."""
    if not snapshot.entries:
        return Plan((), (), snapshot.max_step_tokens, snapshot.max_running, {})
    view = outlook(snapshot, now_s)
    kept = _keep(view, now_s)
    aged = _aged_lane(snapshot, view, kept, now_s)
    rank = _rank(view, kept, aged)
    places, budget = _batch(snapshot, view, kept)
    ids = [entry.job.id for entry in snapshot.entries]
    return Plan(
        order=[ids[i] for i in _decodes_first(view, rank)],
        preempt=[ids[i] for i in _preempt(snapshot.settings, view, kept, aged, rank, places)],
        token_budget=budget,
        max_running=places,
        reasons=dict(zip(ids, _reasons(view, kept, aged), strict=True)),
    )


def _keep(view: Outlook, now_s: float) -> Mask:
    """Which attainable requests to keep on time: all if they fit, else without those that lose least by waiting."""
    kept: Mask = view.attainable & view.targeted
    chosen = np.flatnonzero(kept)
    chosen = chosen[np.argsort(view.due_s[chosen], kind="stable")]
    cost, room = view.own_cost_s[chosen], view.due_s[chosen] - now_s
    if (np.cumsum(cost) <= room).all():
        return kept
    used, least = 0.0, list[tuple[float, int, float]]()
    for index, density, own, until in zip(
        chosen.tolist(), view.loss_density[chosen].tolist(), cost.tolist(), room.tolist(), strict=True
    ):
        used += own
        heapq.heappush(least, (density, -index, own))
        while used > until and least:
            _, dropped, freed = heapq.heappop(least)
            kept[-dropped] = False
            used -= freed
    return kept


def _aged_lane(snapshot: Snapshot, view: Outlook, kept: Mask, now_s: float) -> list[int]:
    """Indices in the aged lane, oldest first: bounded waiting for what nothing else would ever choose.

    The lane belongs to the oldest requests that are past the pool's patience and not kept, whether they run or wait.
    Nothing can enter it before one that waits in it, and who runs in it is not preempted, so whoever is next in line
    waits for one service time a place.
    """
    settings = snapshot.settings
    places = max(1, int(snapshot.max_running * settings.aged_share))
    past = np.flatnonzero((now_s - view.arrival > settings.patience_s) & ~kept)
    oldest: list[int] = past[np.argsort(view.arrival[past], kind="stable")[:places]].tolist()
    return oldest


def _rank(view: Outlook, kept: Mask, aged: list[int]) -> Indices:
    """Indices of all entries, those that deserve service most first."""
    everything_fits = bool((kept | ~view.targeted).all())
    # What can wait for all the work at hand needs no protection from what is losing its worth already.
    tier = np.where(kept & (everything_fits | (view.slack_s < view.own_cost_s.sum())), 1, 2)
    tier[aged] = 0
    key = np.where(kept & everything_fits, view.slack_s, -view.loss_density)
    key[aged] = 0.0
    order: Indices = np.lexsort((view.arrival, -view.density, key, tier))
    return order


def _decodes_first(view: Outlook, rank: Indices) -> list[int]:
    """Indices in the order in which a step serves them.

    What is decoding takes one token of the step's budget each; a prefill before it would stall it for nothing. Whether
    it keeps its place is for preemption to decide.
    """
    decoding = view.decoding[rank]
    order: list[int] = np.concatenate((rank[decoding], rank[~decoding])).tolist()
    return order


def _batch(snapshot: Snapshot, view: Outlook, kept: Mask) -> tuple[int, int]:
    """Places and tokens of a step that serves the kept streams at their pace.

    No more places than a step within the tightest time between tokens can decode, and no more prefill than ends before
    the first token is due: a stream ahead of its pace leaves room to fill the batch, one behind gets short steps.
    """
    settings, step = snapshot.settings, snapshot.step_time
    streams = view.decoding & kept
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


def _preempt(
    settings: Settings, view: Outlook, kept: Mask, aged: list[int], rank: Indices, places: int
) -> Sequence[int]:
    """Indices to take off the batch, so that kept requests which can't wait for a place get one.

    Each newcomer would otherwise get the place of the next running request to end. What it loses by waiting that long
    has to pay for the victim's recompute, at what the batch earns in that time, and for the victim's own wait.
    """
    runs = view.running[rank]
    running = rank[runs]
    newcomers = rank[kept[rank] & ~runs][max(places - len(running), 0) :][: len(running)]
    if not len(newcomers):
        return ()
    victims = running[~np.isin(running, aged)]
    waits_s = np.zeros(len(rank))
    waits_s[newcomers] = np.sort(view.run_s[running])[: len(newcomers)]
    waits_s[victims] = view.run_s[newcomers].mean()
    loss = view.gain - view.gain_after(waits_s)
    earns = float(view.gain[running].sum() / view.cost_s[running].sum())
    price = (1.0 + settings.preempt_margin) * (loss + earns * view.recompute_s)
    newcomers = newcomers[np.argsort(-loss[newcomers], kind="stable")]
    victims = victims[np.argsort(price[victims], kind="stable")]
    pairs = min(len(newcomers), len(victims))
    going: list[int] = victims[:pairs][loss[newcomers[:pairs]] > price[victims[:pairs]]].tolist()
    return going


def _reasons(view: Outlook, kept: Mask, aged: list[int]) -> list[Reason]:
    names = (Reason.ON_TIME, Reason.NO_TARGET, Reason.DEFERRED, Reason.LATE, Reason.AGED)
    code = np.select([kept, ~view.targeted, view.attainable], [0, 1, 2], 3)
    code[aged] = 4
    return [names[c] for c in code.tolist()]
