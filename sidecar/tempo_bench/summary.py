"""Rows of figures: one for each run and class, and one for all classes together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tempo_bench.accounting import UnitRecord, UnitResult

ALL: Final = "all"
_FAILED_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Run:
    """One workload through one policy."""

    load: str
    policy: str
    seed: int
    rate_per_s: float
    fingerprint: str
    results: tuple[UnitResult, ...]
    records: tuple[UnitRecord, ...] = ()
    """What the results were judged from, in the same order."""

    @property
    def errors(self) -> list[str]:
        """What went wrong, one text for each unit that failed."""
        return [result.error for result in self.results if result.error is not None]

    @property
    def sound(self) -> bool:
        """Whether few enough units failed for the figures to mean something."""
        return len(self.errors) <= _FAILED_SHARE * len(self.results)

    @property
    def complaint(self) -> str:
        """A line about the failures of a run that is not sound."""
        label = f"{self.policy}, {self.load}, seed {self.seed}"
        return f"{label}: {len(self.errors)} of {len(self.results)} units failed, the first with: {self.errors[0]}"


Row = dict[str, Any]


def percentile(values: Iterable[float | None], q: float) -> float | None:
    """The q-th percentile (0 to 100, linear between neighbours) of the values that exist; None of none."""
    known = [value for value in values if value is not None]
    return round(float(np.percentile(known, q)), 6) if known else None


def summarise(run: Run) -> list[Row]:
    """A row for each class in the run, by name, then one for `all`.

    `requests` counts SLO units (a program is one), `calls` the requests that they were. TTFT and gaps exist for
    streamed classes only; elsewhere, and in a class that finished nothing, the value is None (null in JSON).
    """
    names = sorted({result.slo_class for result in run.results})
    labels = {"load": run.load, "policy": run.policy, "seed": run.seed}
    groups = [(name, [result for result in run.results if result.slo_class == name]) for name in names]
    return [{**labels, "slo_class": name, **figures(results)} for name, results in [*groups, (ALL, run.results)]]


def figures(results: Sequence[UnitResult]) -> Row:
    """The figures of these units, which may come from several runs of the same kind."""
    ttft = [result.ttft_s for result in results]
    gaps = [gap for result in results for gap in result.gaps_s]
    ttlt = [result.ttlt_s for result in results]
    duration_s = max((result.ended_s for result in results), default=0.0)
    output_tokens = sum(result.output_tokens for result in results)
    return {
        "requests": len(results),
        "attainment": sum(result.attained for result in results) / len(results) if results else None,
        "service_gain": round(sum(result.gain for result in results), 3),
        "ttft_p50_s": percentile(ttft, 50),
        "ttft_p99_s": percentile(ttft, 99),
        "tbt_p50_s": percentile(gaps, 50),
        "tbt_p99_s": percentile(gaps, 99),
        "ttlt_p50_s": percentile(ttlt, 50),
        "ttlt_p99_s": percentile(ttlt, 99),
        "calls": sum(result.calls for result in results),
        "errors": sum(result.error is not None for result in results),
        "output_tokens": output_tokens,
        "goodput_gain": round(sum(result.goodput for result in results), 3),
        "duration_s": round(duration_s, 3),
        "tokens_per_s": round(output_tokens / duration_s, 3) if duration_s else None,
    }


def pooled(runs: Sequence[Run], load: str, policy: str, slo_class: str) -> Row:
    """The figures of all seeds together."""
    return figures(
        [
            result
            for run in runs
            if (run.load, run.policy) == (load, policy)
            for result in run.results
            if slo_class in {ALL, result.slo_class}
        ]
    )


def names(runs: Sequence[Run], attribute: str) -> list[str]:
    """The distinct loads or policies of these runs, in order of appearance."""
    return list(dict.fromkeys(getattr(run, attribute) for run in runs))


def class_names(runs: Sequence[Run]) -> list[str]:
    """The classes that these runs served, by name, with `all` last."""
    return [*sorted({result.slo_class for run in runs for result in run.results}), ALL]
