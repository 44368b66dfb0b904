"""JITServe's grouped margin goodput maximisation, GMAX (NSDI'26, arXiv 2504.20068 version 3)."""

from typing import Final

import numpy as np

from tempo_core.density import Indices, Outlook, outlook
from tempo_core.lengths import Floats
from tempo_core.policies.ordered import waited_s
from tempo_core.policies.plans import context_tokens, decode_room, make_plan, tightest_tbt_s
from tempo_core.policies.stallfree import stall_free_tokens
from tempo_core.snapshot import Plan, Snapshot

CUTOFF: Final = 0.95
"""A request is a candidate from this share of the priority of the last place."""
FRAME_S: Final = 0.3
AGING: Final = 0.005
"""What a frame of waiting adds to a priority, as a share of the priority of the last place; the paper says small."""


def gmax(snapshot: Snapshot, now_s: float) -> Plan:
    """Of the requests of about the highest priority, the batch of the most alike prompts.

    1. Priority is expected gain a second of remaining engine time, a program's calls pooled, plus a little for each
       frame that a request has waited.
    2. Candidates are all with at least `CUTOFF` of the priority of the last place. Sorted by prompt length, the window
       of as many as there are places with the largest sum of priorities is the batch.
    3. Who runs outside the window gives way to who waits in it where what that gains, over the newcomer's engine time,
       is more than what the stall loses: the recompute, at what the batch earns in that time.
    4. Where a step takes longer than the tightest TBT of those that run, places are cut until it doesn't.

    Gain is as each class declares it: v3's goodput with `decay: hard`, otherwise v1's soft gain, which its artifact
    ranks by. Prefill is chunked as in `sarathi`. Not modelled: dropping after 5 s without a place (a class's overload
    rule), the share of calls that a program needs in one frame, reloading a victim's cache, and power of K.
    """
    if not snapshot.entries:
        return make_plan(snapshot, ())
    view, places = outlook(snapshot, now_s), _places(snapshot)
    score = _aged(snapshot, view.density, now_s)
    prompts = np.array([entry.job.prompt_tokens for entry in snapshot.entries])
    chosen = window(score, prompts, places)
    inside = np.zeros(len(score), dtype=np.bool_)
    inside[chosen] = True
    rank = np.lexsort((view.arrival, ~view.running, -score, ~inside))
    entries = snapshot.entries
    return make_plan(
        snapshot,
        [entries[i] for i in rank.tolist()],
        preempt=[entries[i] for i in _preempt(view, rank, len(chosen), places)],
        token_budget=stall_free_tokens(snapshot),
        max_running=places,
    )


def window(score: Floats, prompts: Floats, places: int) -> Indices:
    """Indices of the batch: the candidates' best run of `places`, by prompt length."""
    last = np.partition(score, -places)[-places] if places < len(score) else -np.inf
    candidates = np.flatnonzero(score >= CUTOFF * last)
    by_prompt = candidates[np.lexsort((-score[candidates], prompts[candidates]))]
    sums = np.concatenate(([0.0], np.cumsum(score[by_prompt])))
    size = min(places, len(by_prompt))
    start = int(np.argmax(sums[size:] - sums[:-size]))
    best: Indices = by_prompt[start : start + size]
    return best


def _aged(snapshot: Snapshot, density: Floats, now_s: float) -> Floats:
    last = np.sort(density)[-min(snapshot.max_running, len(density))]
    waited = np.array([waited_s(entry, now_s) for entry in snapshot.entries])
    score: Floats = density + AGING * last * waited / FRAME_S
    return score


def _places(snapshot: Snapshot) -> int:
    running = [entry for entry in snapshot.entries if entry.running]
    tbt_s = tightest_tbt_s(running)
    if snapshot.step_time.seconds(len(running), 0, context_tokens(snapshot)) <= tbt_s:
        return snapshot.max_running
    return max(1, decode_room(snapshot, tbt_s, len(running)))


def _preempt(view: Outlook, rank: Indices, chosen: int, places: int) -> list[int]:
    """Indices that leave the batch: the least dense outside the window, for the densest inside that lack a place."""
    best, rest = rank[:chosen], rank[chosen:]
    free = max(places - int(view.running.sum()), 0)
    newcomers = best[~view.running[best]][free:]
    victims = rest[view.running[rest]]
    if not len(newcomers) or not len(victims):
        return []
    victims = victims[np.argsort(view.density[victims], kind="stable")]
    pairs = min(len(newcomers), len(victims))
    newcomers, victims = newcomers[:pairs], victims[:pairs]
    earns = float(view.gain[view.running].sum() / view.cost_s[view.running].sum())
    gains = (view.density[newcomers] - view.density[victims]) * view.own_cost_s[newcomers]
    going: list[int] = victims[gains > earns * view.recompute_s[victims]].tolist()
    return going
