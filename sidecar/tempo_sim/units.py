"""What came of each unit: from when its tokens appeared to times, service gain and attainment.

Gain is counted by the ledgers that the sidecar and the benchmark use, fed with the stamps of every token.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, isnan

from tempo_core.gain import Outcome, ProgramLedger, RequestLedger, token_value
from tempo_core.slo import GainRule, Pattern, SLOClass

_GOODPUT = GainRule(weight=1.0, input_token=1.0, output_token=1.0, decay=inf)
"""Counts tokens, on time or not at all."""


@dataclass(frozen=True, slots=True)
class UnitResult:
    """One unit, judged. Seconds; None where a time does not exist: TTFT, TBT and gaps of what is not streamed."""

    id: str
    slo_class: str
    arrival_s: float
    """When its first call arrived, after the start of the run."""
    ended_s: float
    calls: int
    prompt_tokens: int
    output_tokens: int
    ttft_s: float | None
    tbt_s: float | None
    """The mean time between tokens; None also for a stream of one token."""
    ttlt_s: float
    gain: float
    """By the class's own decay."""
    goodput: float
    """Gain with `decay: hard`, the paper's (version 3) token goodput."""
    goodput_tokens: int
    """The tokens that count for it, whatever they are worth."""
    attained: bool
    gaps_s: "array[float]"
    """Between successive tokens of a stream."""


@dataclass(frozen=True, slots=True)
class CallResult:
    """One call of a unit, as it ended. Times are absolute seconds."""

    arrival_s: float
    prompt_tokens: int
    stage: int
    stamps: Sequence[float]
    """When each token appeared; at least one."""


def judge(unit_id: str, slo: SLOClass, arrival_s: float, calls: Sequence[CallResult]) -> UnitResult:
    """Judge a unit by its class, from all of its calls."""
    outcome = _outcome(slo, arrival_s, calls)
    on_time = _outcome(replace(slo, gain=_GOODPUT), arrival_s, calls).gain
    stamps = calls[0].stamps if slo.pattern is Pattern.LATENCY else ()
    return UnitResult(
        id=unit_id,
        slo_class=slo.name,
        arrival_s=arrival_s,
        ended_s=max(call.stamps[-1] for call in calls),
        calls=len(calls),
        prompt_tokens=outcome.prompt_tokens,
        output_tokens=outcome.output_tokens,
        ttft_s=outcome.ttft_s if stamps else None,
        tbt_s=outcome.tbt_s if stamps and not isnan(outcome.tbt_s) else None,
        ttlt_s=outcome.ttlt_s,
        gain=outcome.gain,
        goodput=_goodput(slo, outcome, on_time),
        goodput_tokens=round(on_time),
        attained=outcome.attained,
        gaps_s=array("d", (later - earlier for earlier, later in pairwise(stamps))),
    )


def call_outcome(slo: SLOClass, arrival_s: float, call: CallResult, deadline_s: float | None = None) -> Outcome:
    """What one call came to, its SLO counted from `arrival_s`. Only a stream is asked for every single token."""
    ledger = RequestLedger(slo, arrival_s, deadline_s)
    if slo.pattern is Pattern.LATENCY:
        for at_s in call.stamps:
            ledger.tokens(at_s, 1)
    else:
        ledger.tokens(call.stamps[0], 1)
        ledger.tokens(call.stamps[-1], len(call.stamps) - 1)
    return ledger.finish(call.stamps[-1], call.prompt_tokens)


def _outcome(slo: SLOClass, arrival_s: float, calls: Sequence[CallResult]) -> Outcome:
    if slo.pattern is not Pattern.COLLECTIVE:
        return call_outcome(slo, arrival_s, calls[0])
    ledger = ProgramLedger(slo, arrival_s)
    for call in sorted(calls, key=lambda call: call.stamps[-1]):
        ledger.call_ended(call_outcome(slo, call.arrival_s, call), call.stamps[-1], call.stage)
    return ledger.finish()


def _goodput(slo: SLOClass, outcome: Outcome, on_time: float) -> float:
    """Hard gain, from the number of tokens on time: of a stream its output, of all else everything or nothing."""
    if slo.pattern is Pattern.LATENCY:
        return token_value(slo.gain, 0, on_time)
    return token_value(slo.gain, outcome.prompt_tokens, outcome.output_tokens) if on_time else 0.0
