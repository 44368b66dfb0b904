"""Tempo: keep on time what can be kept on time, and choose what that is by the gain that waiting would lose.

1. *Outlook.* For every request: expected gain now, expected gain behind all the work at hand, engine time, slack,
   whether its target can still be met.
2. *Keep.* Of those whose target can be met, the set that fits: in order of due time, engine time is added up, and where
   it no longer fits, what loses least by waiting, for its engine time, is deferred (the Moore-Hodgson rule).
3. *Rank.* The aged lane first, then what is kept, then the rest. While every target can be met, what is kept goes by
   least slack, just in time; otherwise by the gain lost by waiting for each second of engine time.
4. *Batch.* A step stays within the tightest time between tokens that is kept: that limits places, prefill.
5. *Preempt.* Only where a kept request loses more by waiting for the next place than its victim does by giving its own
   up, the recompute and a margin included.

The paper ranks by density of gain alone (arXiv 2504.20068, section 4); why the gain *lost by waiting* stands in its
place is in docs/decisions/0003-rank-by-the-gain-that-waiting-loses.md.
"""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tempo_core.density import Outlook, outlook
from tempo_core.snapshot import Entry, Plan, Reason, Snapshot

Mask = NDArray[np.bool_]


def tempo(snapshot: Snapshot, now_s: float) -> Plan:
    """Order every entry exactly once, preempt running ones only; ties go to the earlier arrival, then the first."""
    if not snapshot.entries:
        return Plan((), (), snapshot.max_step_tokens, snapshot.max_running, {})
    view = outlook(snapshot, now_s)
    kept = _keep(view, now_s)
    aged = _aged_lane(snapshot, view, kept, now_s)
    rank = _rank(view, kept, aged)
    places, budget = _batch(snapshot, view, kept, rank)
    return Plan(
        order=_decodes_first(snapshot, view, rank),
        preempt=_preempt(snapshot, view, kept, aged, rank, places),
        token_budget=budget,
        max_running=places,
        reasons=_reasons(snapshot.entries, view, kept, aged),
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


def _rank(view: Outlook, kept: Mask, aged: list[int]) -> list[int]:
    """Indices of all entries, those that deserve service most first."""
    everything_fits = bool((kept | ~view.targeted).all())
    # What can wait for all the work at hand needs no protection from what is losing its worth already.
    tier = np.where(kept & (everything_fits | (view.slack_s < view.own_cost_s.sum())), 1, 2)
    tier[aged] = 0
    key = np.where(kept & everything_fits, view.slack_s, -view.loss_density)
    key[aged] = 0.0
    order: list[int] = np.lexsort((view.arrival, -view.density, key, tier)).tolist()
    return order


def _decodes_first(snapshot: Snapshot, view: Outlook, rank: list[int]) -> list[str]:
    """Ids in the order in which a step serves them.

    What is decoding takes one token of the step's budget each; a prefill before it would stall it for nothing. Whether
    it keeps its place is for preemption to decide.
    """
    decoding = _decoding(view)
    ids = [entry.job.id for entry in snapshot.entries]
    return [ids[i] for i in rank if decoding[i]] + [ids[i] for i in rank if not decoding[i]]


def _decoding(view: Outlook) -> list[bool]:
    mask: list[bool] = (view.running & (view.prefill_tokens == 0.0)).tolist()
    return mask


def _batch(snapshot: Snapshot, view: Outlook, kept: Mask, rank: list[int]) -> tuple[int, int]:
    """Places and tokens of a step that keeps to the tightest time between tokens among what it serves."""
    settings, step = snapshot.settings, snapshot.step_time
    top = rank[: snapshot.max_running]
    tbt = min((snapshot.entries[i].job.slo.objectives.tbt_s for i in top if kept[i]), default=np.inf)
    allowed_s = settings.tbt_headroom * tbt
    if allowed_s <= step.seconds(1, settings.min_prefill_tokens):  # no stream at hand, or a pace that can't be kept
        allowed_s = np.inf
    if allowed_s == np.inf:
        return snapshot.max_running, snapshot.max_step_tokens
    places = snapshot.max_running
    least_s = step.seconds(0, settings.min_prefill_tokens)
    if step.per_sequence_s > 0.0:
        places = min(places, max(1, int((allowed_s - least_s) / step.per_sequence_s)))
    decoding = sum(_decoding(view))
    prefill = (allowed_s - step.seconds(decoding)) / step.per_prefill_token_s
    budget = decoding + max(settings.min_prefill_tokens, int(prefill))
    return places, min(budget, snapshot.max_step_tokens)


def _preempt(snapshot: Snapshot, view: Outlook, kept: Mask, aged: list[int], rank: list[int], places: int) -> list[str]:
    """Ids to take off the batch, so that kept requests which can't wait for a place get one.

    Each newcomer would otherwise get the place of the next running request to end. What it loses by waiting that long
    has to pay for the victim's recompute, at what the batch earns in that time, and for the victim's own wait.
    """
    runs, keeps = view.running.tolist(), kept.tolist()
    running = [i for i in rank if runs[i]]
    places_left = max(places - len(running), 0)
    newcomers = [i for i in rank if keeps[i] and not runs[i]][places_left:]
    victims = [i for i in running if i not in aged]
    if not newcomers or not victims:
        return []
    waits_s = np.zeros(len(rank))
    next_free_s = np.sort(view.run_s[running])
    turns = np.minimum(np.arange(len(newcomers)), len(running) - 1)
    waits_s[newcomers] = next_free_s[turns]
    waits_s[victims] = view.run_s[newcomers].mean()
    loss = view.gain - view.gain_after(waits_s)
    earns = float(view.gain[running].sum() / view.cost_s[running].sum())
    price = (1.0 + snapshot.settings.preempt_margin) * (loss + earns * view.recompute_s)
    by_loss = sorted(newcomers, key=(-loss).tolist().__getitem__)
    by_price = sorted(victims, key=price.tolist().__getitem__)
    pairs = zip(by_loss, by_price, strict=False)
    return [snapshot.entries[victim].job.id for newcomer, victim in pairs if loss[newcomer] > price[victim]]


def _reasons(entries: Sequence[Entry], view: Outlook, kept: Mask, aged: list[int]) -> dict[str, Reason]:
    code = np.select([kept, ~view.targeted, view.attainable], [0, 1, 2], 3)
    code[aged] = 4
    names = (Reason.ON_TIME, Reason.NO_TARGET, Reason.DEFERRED, Reason.LATE, Reason.AGED)
    return {entry.job.id: names[c] for entry, c in zip(entries, code.tolist(), strict=True)}
