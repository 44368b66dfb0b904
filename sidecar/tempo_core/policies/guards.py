"""Scorpio: a guard for the first token and one for the pace of the others (arXiv 2505.23022)."""

from dataclasses import replace
from math import inf, isnan
from typing import Final

from tempo_core.density import outlook
from tempo_core.policies.ordered import arrival
from tempo_core.policies.plans import (
    decode_room,
    expected_tokens,
    is_decoding,
    make_plan,
    prefill_room,
    tightest_tbt_s,
)
from tempo_core.snapshot import Entry, Plan, Reason, Snapshot

_LEAST_S: Final = 1e-3


def scorpio(snapshot: Snapshot, now_s: float) -> Plan:
    """Least deadline first, as many as their paces allow, and each as often as its pace asks.

    * *TTFT guard.* Who waits goes by the time until which it can, least first. Scorpio rejects who can't be on time
      any more; a policy can't, so these go last.
    * *TPOT guard, admission.* A request weighs the tightest TBT over its own: one with a loose pace needs only some of
      the steps. Requests are admitted while their weights, the virtual batch size, fit a step of the tightest TBT.
    * *TPOT guard, batching.* Where a step can't decode all that run, those go that are owed most tokens by their pace.
      Scorpio counts credits, one weight a step; here they follow from the time since the first token.

    Scorpio knows streams only. A request with a deadline paces itself to end by then; without a target, or late, it
    weighs nothing. Its length predictor is this project's.
    """
    entries, tightest_s = snapshot.entries, tightest_tbt_s(snapshot.entries)
    if not entries:
        return make_plan(snapshot, ())
    view = outlook(snapshot, now_s)
    ids = [entry.job.id for entry in entries]
    lost = {id_ for id_, ok, has in zip(ids, view.expected, view.targeted, strict=True) if has and not ok}
    slack_s = dict(zip(ids, view.slack_s.tolist(), strict=True))
    pace_s = _paces_s(snapshot, now_s)

    line = sorted(
        (entry for entry in entries if not entry.running),
        key=lambda entry: (entry.job.id in lost, slack_s[entry.job.id], *arrival(entry)),
    )
    running = sorted((e for e in entries if e.running), key=lambda e: (-_owed(e, pace_s[e.job.id], now_s), *arrival(e)))
    plan = make_plan(snapshot, [*running, *line], reasons=dict.fromkeys(lost, Reason.LATE))
    if tightest_s == inf:
        return plan

    decoding = [entry.job.id for entry in running if is_decoding(entry)]
    virtual = max(1, decode_room(snapshot, tightest_s, len(decoding)))
    weight = {id_: min(tightest_s / own_s, 1.0) for id_, own_s in pace_s.items()}
    admitted = _admitted(virtual - sum(weight[e.job.id] for e in running), [weight[e.job.id] for e in line])
    first, skipped = decoding[:virtual], decoding[virtual:]
    prefilling = [entry.job.id for entry in running if not is_decoding(entry)]
    prefill = max(prefill_room(snapshot, tightest_s, len(first)), snapshot.settings.min_prefill_tokens)
    return replace(
        plan,
        order=[*first, *prefilling, *skipped, *(entry.job.id for entry in line)],
        token_budget=min(len(first) + prefill, snapshot.max_step_tokens),
        max_running=max(1, min(len(running) + admitted, snapshot.max_running)),
    )


def _paces_s(snapshot: Snapshot, now_s: float) -> dict[str, float]:
    """The time that each request may take for a token, in seconds, by id; inf where nothing is promised any more."""

    def pace_s(entry: Entry, to_come: float) -> float:
        own_s, left_s = entry.job.slo.objectives.tbt_s, entry.job.deadline_s - now_s
        return own_s if own_s < inf else max(left_s / to_come, _LEAST_S) if left_s > 0.0 else inf

    to_come = expected_tokens(snapshot).tolist()
    return {e.job.id: pace_s(e, tokens) for e, tokens in zip(snapshot.entries, to_come, strict=True)}


def _owed(entry: Entry, pace_s: float, now_s: float) -> float:
    """Tokens that it is behind its pace; negative where it is ahead."""
    return 0.0 if isnan(entry.first_token_s) else (now_s - entry.first_token_s) / pace_s - entry.generated


def _admitted(room: float, weights: list[float]) -> int:
    """How many of the line go in before one does not fit."""
    for count, weight in enumerate(weights):
        room -= weight
        if room < 0.0:
            return count
    return len(weights)
