"""The router's metrics, `tempo_router_*`."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import isnan
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tempo_api.openai import Ending
from tempo_core.gain import Outcome
from tempo_router.fleet import Fleet

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
_GAPS: Final = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)


class Metrics:
    """Counts how requests and programs ended, by class; shows the fleet as it is when asked."""

    def __init__(self, registry: CollectorRegistry, fleet: Fleet) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"tempo_router_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Iterable[float] = _SECONDS) -> Histogram:
            return Histogram(
                f"tempo_router_{name}_seconds", text, ["slo_class"], registry=registry, buckets=tuple(buckets)
            )

        self.requests = counter("requests", "Requests by the way they ended.", "slo_class", "outcome")
        self.attained = counter("attained", "Requests that met their class's objectives.", "slo_class")
        self.gain = counter("gain", "Service gain of requests, and of programs when they end.", "slo_class")
        self.programs = counter("programs", "Programs that ended.", "slo_class")
        self.programs_attained = counter("programs_attained", "Programs that ended in time.", "slo_class")
        self.retries = counter("retries", "Requests sent to another replica after one failed.")
        self.clamped = counter("clamped", "Targets tighter than the class's own that were not granted.", "what")
        self.reloads = counter("reloads", "Configurations taken over from the changed file.")
        self.queued = histogram("queue", "From arrival to the replica that answers.")
        self.ttft = histogram("ttft", "Time to first token of completed requests.")
        self.tbt = histogram("tbt", "Mean time between tokens of completed requests.", _GAPS)
        self.ttlt = histogram("ttlt", "Time to last token of completed requests.")
        _show_fleet(registry, fleet)

    def ended(self, ending: Ending, outcome: Outcome) -> None:
        """Count a request."""
        slo_class = outcome.slo_class
        self.requests.labels(slo_class, ending.value).inc()
        self.gain.labels(slo_class).inc(outcome.gain)
        self.attained.labels(slo_class).inc(outcome.attained)
        if ending is Ending.COMPLETED:
            self.ttlt.labels(slo_class).observe(outcome.ttlt_s)
            for histogram, seconds in ((self.ttft, outcome.ttft_s), (self.tbt, outcome.tbt_s)):
                if not isnan(seconds):
                    histogram.labels(slo_class).observe(seconds)

    def program_ended(self, outcome: Outcome) -> None:
        """Count a program."""
        self.programs.labels(outcome.slo_class).inc()
        self.programs_attained.labels(outcome.slo_class).inc(outcome.attained)
        self.gain.labels(outcome.slo_class).inc(outcome.gain)


def _show_fleet(registry: CollectorRegistry, fleet: Fleet) -> None:
    def show(metric: str, text: str, read: Callable[[], Mapping[str, float]]) -> None:
        gauge = Gauge(f"tempo_router_{metric}", text, ["replica"], registry=registry)
        for name in fleet.urls:
            gauge.labels(name).set_function(partial(_at, read, name))

    show("in_flight", "Requests at the replica.", lambda: fleet.in_flight)
    show("replica_ready", "Whether the replica takes requests.", lambda: fleet.ready)
    show("replica_tokens_per_second", "How fast the replica can go.", lambda: fleet.tokens_per_s)


def _at(read: Callable[[], Mapping[str, float]], name: str) -> float:
    return float(read()[name])
