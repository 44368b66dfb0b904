"""What an endpoint can do: units per second at saturation, from a short closed loop.

A short run ends mid-program, so counting finished units would be off by as much as it measures. Instead the token work
of every call is spread evenly over its time in flight; the work done inside the window, per second, divided by what
one unit of the mix takes, is the capacity.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from tempo_bench.accounting import CallRecord, UnitRecord
from tempo_bench.workload import Kind

PROMPT_TOKEN_WORK: Final = 0.25
"""A prompt token's share of an output token's work; it cancels out where the window holds the mix."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What came of a calibration."""

    units_per_s: float
    output_tokens_per_s: float
    unit_work: float
    """Work of a mean unit, in output tokens."""


def capacity(records: Sequence[UnitRecord], mix: Mapping[Kind, int], start_s: float, end_s: float) -> Capacity:
    """Capacity between `start_s` and `end_s`, a window in which the endpoint was saturated.

    Raises:
        ValueError: if some kind of the mix has no finished unit to learn its work from.

    """
    finished = [record for record in records if record.error is None]
    shares = {kind: count / sum(mix.values()) for kind, count in mix.items() if count}
    work = {kind: [sum(map(_work, record.calls)) for record in finished if record.kind == kind] for kind in shares}
    if missing := [kind.value for kind, values in work.items() if not values]:
        raise ValueError(f"no {' and no '.join(missing)} finished; calibrate for longer or give the rate")
    unit_work = sum(share * fmean(work[kind]) for kind, share in shares.items())
    calls = [(call, _inside(call, start_s, end_s)) for record in finished for call in record.calls]
    window_s = end_s - start_s
    return Capacity(
        units_per_s=sum(_work(call) * share for call, share in calls) / window_s / unit_work,
        output_tokens_per_s=sum(call.output_tokens * share for call, share in calls) / window_s,
        unit_work=unit_work,
    )


def _work(call: CallRecord) -> float:
    return call.output_tokens + PROMPT_TOKEN_WORK * call.prompt_tokens


def _inside(call: CallRecord, start_s: float, end_s: float) -> float:
    """The share of a call's time in flight that lies inside the window."""
    overlap = min(call.ended_s, end_s) - max(call.sent_s, start_s)
    return max(overlap, 0.0) / max(call.ended_s - call.sent_s, 1e-9)
