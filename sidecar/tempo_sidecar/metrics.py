"""The sidecar's metrics, by SLO class."""

from collections.abc import Callable, Iterable
from math import isnan

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.registry import Collector

from tempo_api.openai import Ending
from tempo_api.tallies import Counters, Histograms
from tempo_core.gain import Outcome

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 120, 300)
_GAPS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)


class Metrics:
    """All of them, in a registry of their own. Gain and attainment count what was completed."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests by how they ended", "outcome")
        self.attained = self._counter("attained", "Completed requests that met their SLO")
        self.gain = self._counter("gain", "Service gain, of programs when they end")
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of completed requests")
        self.output_tokens = self._counter("output_tokens", "Output tokens of completed requests")
        self.bounded = self._counter("length_bound", "Completed requests whose length was predicted")
        self.covered = self._counter("length_bound_covered", "Those no longer than their predicted bound")
        self.ttft = self._histogram("ttft_seconds", "Time to first token of streams", _SECONDS)
        self.tbt = self._histogram("tbt_seconds", "Mean time between tokens of a stream", _GAPS)
        self.ttlt = self._histogram("ttlt_seconds", "Time to last token", _SECONDS)
        self.intake_malformed = Counter(
            "tempo_sidecar_intake_malformed", "Intake headers that could not be read", registry=self.registry
        )
        self.class_unknown = Counter(
            "tempo_sidecar_class_unknown", "Requests of an unknown class, served as the default", registry=self.registry
        )

    def ended(self, slo_class: str, ending: Ending) -> None:
        """Count a request out. `slo_class` is empty for one that was refused before it had a class."""
        self.requests.inc(slo_class, ending.value)

    def completed(self, outcome: Outcome, *, streamed: bool) -> None:
        """Record a completed request."""
        name = outcome.slo_class
        self.attained.inc(name, by=outcome.attained)
        self.gain.inc(name, by=outcome.gain)
        self.prompt_tokens.inc(name, by=outcome.prompt_tokens)
        self.output_tokens.inc(name, by=outcome.output_tokens)
        self.ttlt.observe(name, outcome.ttlt_s)
        if streamed and not isnan(outcome.ttft_s):
            self.ttft.observe(name, outcome.ttft_s)
        if streamed and not isnan(outcome.tbt_s):
            self.tbt.observe(name, outcome.tbt_s)

    def program_ended(self, outcome: Outcome) -> None:
        """Record a program that began and ended here; its requests were recorded one by one."""
        self.gain.inc(outcome.slo_class, by=outcome.gain)

    def bound(self, slo_class: str, *, covered: bool) -> None:
        """Record whether a response kept within its predicted bound."""
        self.bounded.inc(slo_class)
        self.covered.inc(slo_class, by=covered)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge that is read when scraped."""
        Gauge(f"tempo_sidecar_{name}", text, registry=self.registry).set_function(read)

    def collect(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Add metrics that are made when scraped."""

        class Scraped(Collector):
            def collect(self) -> Iterable[Metric]:
                return read()

        self.registry.register(Scraped())

    def _counter(self, name: str, text: str, *labels: str) -> Counters:
        return Counters(f"tempo_sidecar_{name}", text, ("slo_class", *labels), self.registry)

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> Histograms:
        return Histograms(f"tempo_sidecar_{name}", text, "slo_class", bounds, self.registry)
