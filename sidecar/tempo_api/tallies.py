"""Counters and histograms of a process whose one event loop counts and is scraped.

prometheus-client finds a child by its labels and takes a lock for each figure; a request has a dozen. These are read
through its registry like any other metric.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Counters(Collector):
    """A counter for each combination of labels' values, from its first `inc` on; without labels, from the start.

    Args:
        name: without `_total`.
        text: what it counts.
        labels: their names; there may be none.
        registry: that it is read through.

    """

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._family: Final = (name, text)
        self._labels: Final = labels
        self._values: defaultdict[tuple[str, ...], float] = defaultdict(float, {} if labels else {(): 0.0})
        registry.register(self)

    def inc(self, *values: str, by: float = 1.0) -> None:
        """Count so much more, which is never less than nothing, under these values in the order of the labels."""
        self._values[values] += by

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        family = CounterMetricFamily(*self._family, labels=self._labels)
        for values, count in self._values.items():
            family.add_metric(values, count)
        yield family


class Histograms(Collector):
    """A histogram for each value of one label, from its first `observe` on.

    Args:
        name: with its unit.
        text: what is measured.
        label: its name.
        bounds: upper bounds of the buckets, ascending; another without one is added.
        registry: that it is read through.

    """

    def __init__(self, name: str, text: str, label: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._family: Final = (name, text)
        self._label: Final = label
        self._bounds: Final = tuple(bounds)
        self._seen: defaultdict[str, _Seen] = defaultdict(lambda: _Seen([0] * (len(self._bounds) + 1)))
        registry.register(self)

    def observe(self, value: str, amount: float) -> None:
        """Note one amount under this value of the label."""
        seen = self._seen[value]
        seen.counts[bisect_left(self._bounds, amount)] += 1
        seen.total += amount

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        family = HistogramMetricFamily(*self._family, labels=[self._label])
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for value, seen in self._seen.items():
            family.add_metric([value], list(zip(names, accumulate(seen.counts), strict=True)), seen.total)
        yield family


@dataclass(slots=True)
class _Seen:
    counts: list[int]
    """By bucket."""
    total: float = 0.0
