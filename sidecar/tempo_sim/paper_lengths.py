"""Lengths of the paper's Table 2, and a distribution fitted to each of its rows.

A distribution is a lognormal in three pieces, which meet at the P50 and the P95, and so meet both exactly: its spread
is another below the median and beyond the P95. These two are fitted to mean and standard deviation, which come out
within 1%. Where the spread below would be more than half as much again as the one above, or less than half of it, the
middle piece bends instead. What is not matched: any other quantile, and how prompts and answers go together (the table
does not say, and they are drawn independently).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import log
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

_Z95: Final = NormalDist().inv_cdf(0.95)
_Z: Final = np.array([NormalDist().inv_cdf((i + 0.5) / 4000) for i in range(4000)])
"""Standard normal quantiles at evenly spread probabilities."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """Statistics of a length, in tokens."""

    mean: float
    std: float
    p50: float
    p95: float


CHAT_INPUT: Final = TableRow(93, 244, 27, 391)
CHAT_OUTPUT: Final = TableRow(318, 313, 225, 1024)
TREE_INPUT: Final = TableRow(1300, 912, 1097, 2767)
TREE_OUTPUT: Final = TableRow(4458, 1176, 4417, 6452)
RESEARCH_CALL_INPUT: Final = TableRow(1911, 2781, 403, 7573)
RESEARCH_CALL_OUTPUT: Final = TableRow(534, 644, 410, 1544)
RESEARCH_INPUT: Final = TableRow(12223, 8407, 10807, 29282)
RESEARCH_OUTPUT: Final = TableRow(3541, 2370, 3148, 7525)


@dataclass(frozen=True, slots=True)
class Lengths:
    """The distribution of a length, as a function of a standard normal z.

    ln(length / P50) = low * z                                  z below 0
                       ln(P95 / P50) * (z / 1.645) ** bend      up to the P95
                       ln(P95 / P50) + tail * (z - 1.645)       beyond
    """

    row: TableRow
    low: float
    bend: float
    tail: float

    @property
    def values(self) -> NDArray[np.float64]:
        """Lengths, tokens, at 4,000 evenly spread probabilities."""
        low = self.low * np.minimum(_Z, 0.0)
        middle = log(self.row.p95 / self.row.p50) * (np.clip(_Z, 0.0, _Z95) / _Z95) ** self.bend
        tail = self.tail * np.maximum(_Z - _Z95, 0.0)
        found: NDArray[np.float64] = self.row.p50 * np.exp(low + middle + tail)
        return found

    @property
    def mean(self) -> float:
        """Mean, tokens."""
        return float(self.values.mean())

    @property
    def std(self) -> float:
        """Standard deviation, tokens."""
        return float(self.values.std())


@lru_cache
def fit(row: TableRow) -> Lengths:
    """The distribution of a row; see the module. Mean falls with `low` and with `bend`; `tail` widens."""
    spread = log(row.p95 / row.p50) / _Z95

    def with_tail(tail: float) -> Lengths:
        low = _root(lambda low: row.mean - Lengths(row, low, 1.0, tail).mean, 0.5 * spread, 1.5 * spread)
        bend = _root(lambda bend: row.mean - Lengths(row, low, bend, tail).mean, 0.2, 5.0)
        return Lengths(row, low, bend, tail)

    return with_tail(_root(lambda tail: with_tail(tail).std - row.std, 0.0, 3.0))


@lru_cache
def lengths(row: TableRow) -> tuple[int, ...]:
    """Lengths of a row at evenly spread probabilities, tokens, each at least 1: to draw one is to choose one."""
    return tuple(np.maximum(fit(row).values.round(), 1).astype(int).tolist())


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function passes zero, by bisection; the nearer end where it does not."""
    for _ in range(25):
        middle = (low + high) / 2.0
        low, high = (low, middle) if rising(middle) > 0.0 else (middle, high)
    return (low + high) / 2.0
