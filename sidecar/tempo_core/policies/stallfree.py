"""First come, first served in steps that keep the time between tokens: Sarathi-Serve, and HyGen on top of it."""

from math import inf

from tempo_core.policies.ordered import arrival
from tempo_core.policies.plans import (
    decode_room,
    displaced,
    is_decoding,
    make_plan,
    prefill_room,
    tightest_tbt_s,
    to_compute,
)
from tempo_core.slo import Pattern
from tempo_core.snapshot import Entry, Plan, Reason, Snapshot


def sarathi(snapshot: Snapshot, now_s: float) -> Plan:
    """FCFS with chunked prefill and stall-free batches: Sarathi-Serve (OSDI'24, arXiv 2403.02310).

    A step decodes everything that decodes, then goes on with prompts begun, then admits new ones, within a token budget
    that keeps it inside the tightest TBT of the streams at hand. The paper finds that budget once, by profiling; here
    the fitted step time gives it for the decodes and contexts of the moment, which only lets more prefill in. Not
    modelled: rounding chunks to the GPU's tiles.
    """
    del now_s
    rank = sorted(snapshot.entries, key=lambda entry: (not entry.running, *arrival(entry)))
    return make_plan(snapshot, rank, token_budget=stall_free_tokens(snapshot))


def stall_free_tokens(snapshot: Snapshot) -> int:
    """Tokens of a step that ends within the tightest TBT of the streams at hand: all its decodes, and some prefill.

    Where the pace can't be kept anyway, prefill has the pool's minimum.
    """
    tbt_s = tightest_tbt_s(snapshot.entries)
    if tbt_s == inf:
        return snapshot.max_step_tokens
    decodes = sum(map(is_decoding, snapshot.entries))
    prefill = max(prefill_room(snapshot, tbt_s, decodes), snapshot.settings.min_prefill_tokens)
    return min(decodes + prefill, snapshot.max_step_tokens)


def coloc(snapshot: Snapshot, now_s: float) -> Plan:
    """Online first, offline in what latency leaves: HyGen (NeurIPS'25, arXiv 2501.14808), not BROS.

    Online is what has a target, first come first served as in `sarathi`; offline is best effort. In two phases, a step
    is filled with online decodes and prefill, then with as many offline ones as its latency budget, the tightest TBT,
    still holds by the predicted step time. Online requests take the places of the newest offline ones. HyGen's profiler
    tightens that budget by the interference that it measures, and its offline order seeks shared prefixes, with a bound
    on age; here both are left out, and offline is first come first served.
    """
    del now_s
    rank = sorted(snapshot.entries, key=lambda entry: (_offline(entry), not entry.running, *arrival(entry)))
    reasons = {entry.job.id: Reason.NO_TARGET for entry in rank if _offline(entry)}
    preempt = displaced(rank, snapshot.max_running)
    tbt_s = tightest_tbt_s(rank)
    if tbt_s == inf:
        return make_plan(snapshot, rank, preempt=preempt, reasons=reasons)
    online, offline = [e for e in rank if not _offline(e)], [e for e in rank if _offline(e)]
    # A place that online requests don't fill is offline's, where a step has room for one more decode.
    places = max(len(online), decode_room(snapshot, tbt_s, sum(map(is_decoding, rank))), 1)
    return make_plan(
        snapshot,
        rank,
        preempt=preempt,
        token_budget=_two_phases(snapshot, tbt_s, online, offline),
        max_running=min(places, snapshot.max_running),
        reasons=reasons,
    )


def _offline(entry: Entry) -> bool:
    return entry.job.slo.pattern is Pattern.BEST_EFFORT


def _two_phases(snapshot: Snapshot, limit_s: float, online: list[Entry], offline: list[Entry]) -> int:
    """Tokens of a step of `limit_s`: online decodes and prefill, then offline decodes and prefill."""
    step = snapshot.step_time
    decodes, others = sum(map(is_decoding, online)), sum(map(is_decoding, offline))
    wanted = sum(to_compute(entry) for entry in online[: snapshot.max_running] if not is_decoding(entry))
    prefill = min(wanted, max(prefill_room(snapshot, limit_s, decodes), snapshot.settings.min_prefill_tokens))
    left_s = limit_s - prefill * step.per_prefill_token_s
    more = max(min(decode_room(snapshot, left_s, decodes + others) - decodes, others), 0)
    rest = prefill_room(snapshot, left_s, decodes + more) if prefill == wanted else 0
    return max(min(decodes + prefill + more + rest, snapshot.max_step_tokens), 1)
