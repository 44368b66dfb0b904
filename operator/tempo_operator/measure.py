"""What the pods' own metrics say of a pool: how many requests met their SLO lately, and what that was worth. Pure.

Counters only grow and start at zero with their process, so what counts is by how much they grew between two looks,
pod by pod; sums over a sliding window smooth the figures enough to be read, and to settle.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from tempo_api.openai import CALLERS_OWN, Ending

WINDOW_S: Final = 120.0
_COUNTED: Final = {
    ending.value
    for ending in Ending
    if ending is Ending.COMPLETED or ((ending.status >= 500 or ending.dropped) and ending not in CALLERS_OWN)
}
"""Endings that say something of the pool; the others are the caller's own."""
_DROPPED: Final = {ending.value for ending in Ending if ending.dropped and ending not in CALLERS_OWN}
_READ: Final = (
    "tempo_router_requests_total",
    "tempo_router_attained_total",
    "tempo_router_gain_total",
    "tempo_router_held",
    "tempo_engine_waiting",
    "tempo_engine_scheduler_active",
)


@dataclass(slots=True)
class Counts:
    """Of one class."""

    requests: float = 0.0
    attained: float = 0.0
    gain: float = 0.0
    dropped: float = 0.0

    def add(self, other: "Counts", sign: float = 1.0) -> None:
        """Add `other`, or take it away."""
        self.requests += sign * other.requests
        self.attained += sign * other.attained
        self.gain += sign * other.gain
        self.dropped += sign * other.dropped

    def since(self, before: "Counts") -> "Counts":
        """How much was added; all of it, if the process began anew."""
        if self.requests < before.requests:
            return Counts(self.requests, self.attained, self.gain, self.dropped)
        grown = Counts(self.requests, self.attained, self.gain, self.dropped)
        grown.add(before, -1.0)
        return grown


@dataclass(slots=True)
class Reading:
    """One pod's metrics at one moment; a router has classes, and both have a queue."""

    classes: dict[str, Counts] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    """How many requests of each class a router holds, because no engine has room for them."""
    waiting: int = 0
    """How many wait in the engine, of whatever class."""
    fallback: bool = False
    """The engine orders its queue itself, because the plug-in can't."""


@dataclass(frozen=True, slots=True)
class Figures:
    """A pool's figures over the window."""

    classes: Mapping[str, Counts]
    held: Mapping[str, int]
    """Requests that routers hold now, by class."""
    waiting: int
    """All that wait now, those in the engines included."""
    fallback: tuple[str, ...]
    """Pods whose plug-in has given up."""
    seconds: float
    """How long the window is so far."""

    @property
    def total(self) -> Counts:
        """Over all classes."""
        total = Counts()
        for counts in self.classes.values():
            total.add(counts)
        return total


def parse_metrics(text: str) -> Reading:
    """What of a pod's metrics page matters here.

    Raises:
        ValueError: if it isn't one.

    """
    reading = Reading()
    lines = "".join(line + "\n" for line in text.splitlines() if line.startswith(_READ))
    for family in text_string_to_metric_families(lines):
        for sample in family.samples:
            _note(reading, sample.name, sample.labels, sample.value)
    return reading


def _note(reading: Reading, name: str, labels: Mapping[str, str], value: float) -> None:
    if name == "tempo_engine_waiting":
        reading.waiting += int(value)
    elif name == "tempo_engine_scheduler_active":
        reading.fallback = value == 0.0
    elif slo_class := labels.get("slo_class"):
        if name == "tempo_router_held":
            reading.held[slo_class] = int(value)
            return
        counts = reading.classes.setdefault(slo_class, Counts())
        if name == "tempo_router_attained_total":
            counts.attained += value
        elif name == "tempo_router_gain_total":
            counts.gain += value
        elif labels.get("outcome") in _COUNTED:
            counts.requests += value
            counts.dropped += value * (labels["outcome"] in _DROPPED)


class Meter:
    """The sliding window of one pool. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, Counts]] = {}
        self._growth: deque[tuple[float, dict[str, Counts]]] = deque()
        self._began_s: float | None = None

    def note(self, readings: Mapping[str, Reading], now_s: float) -> Figures:
        """Take what the pods say now, by pod; a pod that does not answer keeps what it had."""
        grown: dict[str, Counts] = {}
        for pod, reading in readings.items():
            # What a pod counted before this operator knew it may be hours old, so it begins with nothing.
            before = self._last.get(pod, reading.classes)
            for name, counts in reading.classes.items():
                grown.setdefault(name, Counts()).add(counts.since(before.get(name, Counts())))
            self._last[pod] = reading.classes
        if self._began_s is None:
            self._began_s = now_s
        self._growth.append((now_s, grown))
        while self._growth[0][0] <= now_s - WINDOW_S:
            self._growth.popleft()
        return self._figures(readings, min(now_s - self._began_s, WINDOW_S))

    def silent_s(self, now_s: float) -> float:
        """How long ago a pod answered last; inf if none ever did."""
        return now_s - self._growth[-1][0] if self._growth else inf

    def forget(self, gone: Iterable[str]) -> None:
        """These pods are no more."""
        for pod in gone:
            self._last.pop(pod, None)

    @property
    def pods(self) -> Iterable[str]:
        """Those that ever answered."""
        return self._last

    def _figures(self, readings: Mapping[str, Reading], seconds: float) -> Figures:
        classes: dict[str, Counts] = {}
        for _, grown in self._growth:
            for name, counts in grown.items():
                classes.setdefault(name, Counts()).add(counts)
        held: Counter[str] = Counter()
        for reading in readings.values():
            held.update(reading.held)
        return Figures(
            classes=classes,
            held=held,
            waiting=held.total() + sum(reading.waiting for reading in readings.values()),
            fallback=tuple(sorted(pod for pod, reading in readings.items() if reading.fallback)),
            seconds=seconds,
        )


def settled(value: float, digits: int = 2) -> float:
    """`value` rounded to a few significant digits, so that noise does not look like change."""
    return float(f"{value:.{digits}g}")
