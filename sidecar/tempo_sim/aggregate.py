"""What several seeds say together: means, and how far chance may have moved them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Final

from tempo_sim.rows import Row

_T95: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t at 97.5% for 1, 2, ... degrees of freedom; beyond them 1.96 is near enough."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and the half width of its 95% confidence interval."""

    mean: float
    margin: float
    """0 where there is one seed, which says nothing of chance."""


def estimate(values: Sequence[float]) -> Estimate:
    """Of at least one value."""
    if len(values) < 2:
        return Estimate(values[0], 0.0)
    t = _T95[len(values) - 2] if len(values) <= len(_T95) + 1 else 1.96
    return Estimate(fmean(values), t * stdev(values) / sqrt(len(values)))


def over_seeds(rows: Iterable[Row], key: str, **labels: object) -> Estimate | None:
    """Of a figure, over the rows with these labels; None where no row has the figure."""
    chosen = [row for row in rows if all(row[name] == value for name, value in labels.items())]
    values = [row[key] for row in chosen if row[key] is not None]
    return estimate(values) if values else None


def against(rows: Sequence[Row], key: str, policy: str, base: str, **labels: object) -> Estimate | None:
    """A policy's figure as a multiple of another's, seed by seed: both had the same units, so chance cancels out."""
    ours, theirs = _by_seed(rows, key, {**labels, "policy": policy}), _by_seed(rows, key, {**labels, "policy": base})
    ratios = [ours[seed] / theirs[seed] for seed in ours.keys() & theirs.keys() if theirs[seed]]
    return estimate(ratios) if ratios else None


def _by_seed(rows: Sequence[Row], key: str, labels: dict[str, object]) -> dict[int, float]:
    return {row["seed"]: row[key] for row in rows if all(row[name] == value for name, value in labels.items())}
