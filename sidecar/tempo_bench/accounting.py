"""What came of each unit: pure functions from the client's stamps to times, service gain and attainment.

Gain is counted by the same ledgers that the sidecar uses, but from what the client saw. Times are seconds since the
start of the run; a unit's arrival is when it was meant to leave, so that a late client hides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, isnan

from tempo_core.gain import Outcome, ProgramLedger, RequestLedger
from tempo_core.slo import Pattern, SLOClass


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call, as the client saw it."""

    sent_s: float
    ended_s: float
    stamps: tuple[tuple[float, int], ...] = ()
    """(time, new output tokens) of each arrival; one for a call that is not streamed."""
    prompt_tokens: int = 0
    text: str = ""
    error: str | None = None
    cached_tokens: int = 0
    """Of the prompt, where the server says how many it had in its cache."""

    @property
    def output_tokens(self) -> int:
        """Tokens of the answer."""
        return sum(count for _, count in self.stamps)


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """One unit, as the client saw it: the stages that it got to."""

    id: str
    kind: str
    """Its SLO class."""
    arrival_s: float
    stages: tuple[tuple[CallRecord, ...], ...]

    @property
    def calls(self) -> list[CallRecord]:
        """All calls, stage by stage."""
        return [call for stage in self.stages for call in stage]

    @property
    def error(self) -> str | None:
        """What went wrong first, if anything did."""
        return next((call.error for call in self.calls if call.error is not None), None)


@dataclass(frozen=True, slots=True)
class UnitResult:
    """One unit, judged. None where a time does not exist: TTFT and gaps of what is not streamed, times of a failure."""

    id: str
    slo_class: str
    arrival_s: float
    ended_s: float
    calls: int
    prompt_tokens: int
    output_tokens: int
    ttft_s: float | None
    ttlt_s: float | None
    gain: float
    goodput: float
    """Gain with `decay: hard`, the paper's (version 3) token goodput."""
    attained: bool
    error: str | None
    gaps_s: tuple[float, ...]
    """Between successive arrivals of tokens in a stream; tokens that arrive together are one arrival."""


def settle(record: UnitRecord, classes: Mapping[str, SLOClass]) -> UnitResult:
    """Judge a unit by its class. A unit with a failed call earned nothing and did not attain its SLO."""
    slo = classes[record.kind]
    failed = record.error is not None
    outcome = _outcome(record, slo)
    hard = _outcome(record, replace(slo, gain=replace(slo.gain, decay=inf)))
    stream = slo.pattern is Pattern.LATENCY and not failed
    times = [at_s for call in record.calls for at_s, _ in call.stamps] if stream else []
    return UnitResult(
        id=record.id,
        slo_class=slo.name,
        arrival_s=record.arrival_s,
        ended_s=max(call.ended_s for call in record.calls),
        calls=len(record.calls),
        prompt_tokens=sum(call.prompt_tokens for call in record.calls),
        output_tokens=sum(call.output_tokens for call in record.calls),
        ttft_s=times[0] - record.arrival_s if times else None,
        ttlt_s=None if failed or isnan(outcome.ttlt_s) else outcome.ttlt_s,
        gain=0.0 if failed else outcome.gain,
        goodput=0.0 if failed else hard.gain,
        attained=not failed and outcome.attained,
        error=record.error,
        gaps_s=tuple(later - earlier for earlier, later in pairwise(times)),
    )


def _outcome(record: UnitRecord, slo: SLOClass) -> Outcome:
    if slo.pattern is not Pattern.COLLECTIVE:
        return _call_outcome(record.calls[0], slo, record.arrival_s)
    ledger = ProgramLedger(slo, record.arrival_s)
    ended = [(call.ended_s, stage, call) for stage, calls in enumerate(record.stages) for call in calls]
    for ended_s, stage, call in sorted(ended, key=lambda item: item[0]):
        ledger.call_ended(_call_outcome(call, slo, call.sent_s), ended_s, stage)
    return ledger.finish()


def _call_outcome(call: CallRecord, slo: SLOClass, arrival_s: float) -> Outcome:
    ledger = RequestLedger(slo, arrival_s)
    for at_s, count in call.stamps:
        ledger.tokens(at_s, count)
    return ledger.finish(call.ended_s, call.prompt_tokens)
