"""Andes: the batch that adds most quality of experience, as a knapsack (arXiv 2404.16283)."""

from typing import Final, NamedTuple

import numpy as np

from tempo_core.lengths import Floats
from tempo_core.policies.ordered import arrival
from tempo_core.policies.plans import context_tokens, displaced, expected_tokens, make_plan, to_compute
from tempo_core.snapshot import LATENCY, Plan, Snapshot, table

PREEMPTIONS: Final = 1
"""How often a request may lose its place; the paper caps the mean."""
_SIZES: Final = (1.0, 0.875, 0.75, 0.5)
_POINTS: Final = (np.arange(8) + 0.5) / 8.0
"""Where the horizon is sampled, as shares of it."""


class _Readers(NamedTuple):
    """What each reader expects and has; columns of shape (n,), and times in seconds from now."""

    length: Floats
    """Tokens that the response is expected to have."""
    out: Floats
    """Tokens that are out."""
    pace_s: Floats
    """Time that reading a token takes."""
    expected_s: Floats
    """When the first token was or is expected."""
    began_s: Floats
    """When reading began; nan before the first token."""
    prefill_s: Floats


def andes(snapshot: Snapshot, now_s: float) -> Plan:
    """Serve the requests whose readers gain most by being served over the horizon, for the cache that they take.

    A reader expects the first token by TTFT, the others at the pace of TBT, and reads what is there at that pace.
    Quality of experience is the tokens read over those expected, each counted for as long as it is there (areas under
    the curves). What a request is worth is its quality if served over the horizon, the mean response time at hand, less
    that if paused; what it weighs is its context. Where not all fit, the greedy order of worth a token of context fills
    the cache and the places, for several batch sizes (a small one is fast), and the best wins. Running requests outside
    of it give way, at most `PREEMPTIONS` times each.

    Andes is for streams. A request with a deadline is taken as one that is read evenly until then; best effort is worth
    nothing and goes last, by arrival. The batch sizes tried are four, not all; cache size and preemptions are facts of
    the snapshot (`cache_tokens`, `preempted`), without which neither binds.
    """
    entries, places = snapshot.entries, snapshot.max_running
    weight = np.array([entry.job.prompt_tokens + entry.generated + 1.0 for entry in entries])
    if len(entries) <= places and weight.sum() <= snapshot.cache_tokens:
        return make_plan(snapshot, sorted(entries, key=lambda entry: (not entry.running, *arrival(entry))))
    readers = _readers(snapshot, now_s)
    horizon_s = _served_s(readers, snapshot.step_time.seconds(places, 0, context_tokens(snapshot)))
    packed = [_pack(snapshot, readers, weight, horizon_s, max(1, int(share * places))) for share in _SIZES]
    _, size, order = max(packed, key=lambda tried: tried[:2])
    rank = [entries[i] for i in order]
    tired = {e.job.id for e in entries if snapshot.preempted.get(e.job.id, 0) >= PREEMPTIONS}
    preempt = [entry for entry in displaced(rank, size) if entry.job.id not in tired]
    return make_plan(snapshot, rank, preempt=preempt, max_running=size)


def _served_s(readers: _Readers, token_s: float) -> float:
    """The mean time to the end of those at hand, were all served at once."""
    return float(np.mean(readers.prefill_s + (readers.length - readers.out) * token_s))


def _pack(
    snapshot: Snapshot, readers: _Readers, weight: Floats, horizon_s: float, size: int
) -> tuple[float, int, list[int]]:
    """The worth of the greedy batch of at most `size`, its size, and all indices, that batch first."""
    worth = _worth(readers, horizon_s, snapshot.step_time.seconds(size, 0, context_tokens(snapshot)))
    crowded = weight.sum() > snapshot.cache_tokens
    since = np.array([entry.job.arrival_s for entry in snapshot.entries])
    idle = np.array([not entry.running for entry in snapshot.entries])
    order = np.lexsort((since, idle, -(worth / weight if crowded else worth)))
    fits = np.cumsum(weight[order]) <= snapshot.cache_tokens
    batch = max(1, min(size, int(fits.sum())))
    return float(worth[order[:batch]].sum()), batch, order.tolist()


def _readers(snapshot: Snapshot, now_s: float) -> _Readers:
    entries = snapshot.entries
    facts, _ = table(entries)
    out = np.array([entry.generated for entry in entries], dtype=np.float64)
    length = out + expected_tokens(snapshot)
    stream = facts["pattern"] == LATENCY
    allowed_s = np.maximum(facts["due"] - facts["arrival"], 1e-3)
    pace_s = np.where(stream, facts["tbt"], allowed_s / length)
    expected_s = facts["arrival"] + np.where(stream, facts["ttft"], pace_s) - now_s
    prefill = np.array([0.0 if entry.generated and to_compute(entry) <= 1 else to_compute(entry) for entry in entries])
    began_s = np.array([entry.first_token_s for entry in entries]) - now_s
    return _Readers(length, out, pace_s, expected_s, began_s, prefill * snapshot.step_time.per_prefill_token_s)


def _worth(readers: _Readers, horizon_s: float, token_s: float) -> Floats:
    """Quality of experience by serving each over the horizon, less that by pausing it: shape (n,), in [0, 1]."""
    length, out, pace_s, expected_s, began_s, prefill_s = readers
    at_s = horizon_s * _POINTS[:, None]
    served = np.clip(out + (at_s - prefill_s) / token_s, out, length)
    begins_s = np.where(np.isnan(began_s), prefill_s + token_s, began_s)
    read = np.maximum(at_s - begins_s, 0.0) / pace_s
    # Nobody reads more than expected: an early token is not worth more.
    wanted = np.minimum(np.maximum(at_s - expected_s, 0.0) / pace_s, length)
    paused = np.where(np.isnan(began_s), 0.0, np.minimum(out, read))
    gained = np.minimum(np.minimum(served, read), wanted) - np.minimum(paused, wanted)
    span_s = np.maximum(horizon_s - expected_s, 0.0)
    rising_s = np.minimum(span_s, length * pace_s)
    expected = rising_s**2 / (2.0 * pace_s) + length * (span_s - rising_s)
    worth: Floats = np.divide(gained.mean(axis=0) * horizon_s, expected, out=np.zeros_like(out), where=expected > 0.0)
    return worth
