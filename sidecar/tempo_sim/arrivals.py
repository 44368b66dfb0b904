"""When units arrive: an open loop, whose gaps have the mean that the rate asks for, whatever their shape."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Protocol


class Arrivals(Protocol):
    """A way to arrive."""

    def gaps(self, random: Random, rate_per_s: float) -> Iterator[float]:
        """Endless gaps in seconds, the first of them before the first arrival."""


@dataclass(frozen=True, slots=True)
class Poisson:
    """Exponential gaps."""

    def gaps(self, random: Random, rate_per_s: float) -> Iterator[float]:
        """Independent gaps, each as long as its deviation."""
        while True:
            yield random.expovariate(rate_per_s)


@dataclass(frozen=True, slots=True)
class Bursts:
    """Gamma gaps: short ones come together where `cv`, deviation over mean, is above 1 (1 is Poisson)."""

    cv: float

    def __post_init__(self) -> None:
        if not self.cv > 0.0:
            raise ValueError(f"bursts need a coefficient of variation above 0, not {self.cv:g}")

    def gaps(self, random: Random, rate_per_s: float) -> Iterator[float]:
        """Independent gaps."""
        shape = self.cv**-2
        while True:
            yield random.gammavariate(shape, 1.0 / (shape * rate_per_s))


@dataclass(frozen=True, slots=True)
class TraceGaps:
    """A trace's gaps in their order, stretched to the rate; the seed says where in the trace a run starts.

    The trace's mean over all of it becomes the rate, so a part of it may be busier or quieter. After its end it goes on
    from its start.

    Raises:
        ValueError: where the times are not at least two different ones in order.

    """

    at_s: Sequence[float]
    """Arrivals, seconds, in order."""

    def __post_init__(self) -> None:
        if len(self.at_s) < 2 or self.at_s[0] == self.at_s[-1] or any(b < a for a, b in pairwise(self.at_s)):
            raise ValueError("arrivals like a trace's need at least two different times, in order")

    def gaps(self, random: Random, rate_per_s: float) -> Iterator[float]:
        """Each gap of the trace once, then all again."""
        count = len(self.at_s) - 1
        stretch = count / (self.at_s[-1] - self.at_s[0]) / rate_per_s
        i = random.randrange(count)
        while True:
            yield (self.at_s[i + 1] - self.at_s[i]) * stretch
            i = (i + 1) % count
