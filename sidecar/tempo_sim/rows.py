"""Rows of figures, as the demonstration's summary has them: one for each class of a run, and one for all together."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from tempo_sim.run import SimResult
from tempo_sim.units import UnitResult

Row = dict[str, Any]

ALL: Final = "all"


def rows(result: SimResult, *, load: str, policy: str, seed: int) -> list[Row]:
    """A row for each class in the run, by name, then one for `all`; the arguments label them.

    `requests` counts SLO units (a program is one), `calls` the requests that they were. Where a figure does not exist,
    it is None: TTFT and TBT of a class that is not streamed. `duration_s` is the time until a class's last token.
    """
    labels = {"load": load, "policy": policy, "seed": seed}
    names = sorted({unit.slo_class for unit in result.units})
    groups = [(name, [unit for unit in result.units if unit.slo_class == name]) for name in names]
    return [{**labels, "slo_class": name, **figures(units)} for name, units in [*groups, (ALL, result.units)]]


def figures(units: Sequence[UnitResult]) -> Row:
    """The figures of these units."""
    duration_s = max((unit.ended_s for unit in units), default=0.0)
    output_tokens = sum(unit.output_tokens for unit in units)
    attained = sum(unit.attained for unit in units)
    gaps = np.concatenate([np.empty(0), *(unit.gaps_s for unit in units)])
    ttft_s = [unit.ttft_s for unit in units if unit.ttft_s is not None]
    ttlt_s = [unit.ttlt_s for unit in units]
    return {
        "requests": len(units),
        "attainment": attained / len(units) if units else None,
        "service_gain": round(sum(unit.gain for unit in units), 3),
        "goodput_gain": round(sum(unit.goodput for unit in units), 3),
        **_percentiles("ttft", ttft_s),
        **_percentiles("tbt", gaps),
        **_percentiles("ttlt", ttlt_s),
        "calls": sum(unit.calls for unit in units),
        "output_tokens": output_tokens,
        "duration_s": round(duration_s, 3),
        "tokens_per_s": _rate(output_tokens, duration_s),
        "goodput_tokens_per_s": _rate(sum(unit.goodput_tokens for unit in units), duration_s),
        "goodput_requests_per_s": _rate(attained, duration_s),
    }


def _percentiles(name: str, values: Sequence[float] | Iterable[float]) -> Row:
    """Linear between neighbours; None of no values."""
    known = np.asarray(values, dtype=np.float64)
    quantiles = np.percentile(known, (50, 99)).tolist() if len(known) else (None, None)
    return {
        f"{name}_{label}_s": None if value is None else round(value, 6)
        for label, value in zip(("p50", "p99"), quantiles, strict=True)
    }


def _rate(count: float, duration_s: float) -> float | None:
    return round(count / duration_s, 3) if duration_s else None
