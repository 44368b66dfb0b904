"""The router's metrics, `tempo_router_*`."""

from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tempo_api.openai import Ending
from tempo_api.tallies import Counters, Histograms
from tempo_core.gain import Outcome
from tempo_router.fleet import Fleet
from tempo_router.tenants import Exchange

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
_GAPS: Final = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)


class Metrics:
    """Counts how requests and programs ended, by class."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counters(name: str, text: str, *labels: str) -> Counters:
            return Counters(f"tempo_router_{name}", text, labels, registry)

        def histograms(name: str, text: str, bounds: Sequence[float] = _SECONDS) -> Histograms:
            return Histograms(f"tempo_router_{name}_seconds", text, "slo_class", bounds, registry)

        self.requests = counters("requests", "Requests by the way they ended.", "slo_class", "outcome")
        self.attained = counters("attained", "Requests that met their class's objectives.", "slo_class")
        self.gain = counters("gain", "Service gain of requests, and of programs when they end.", "slo_class")
        self.programs = counters("programs", "Programs that ended.", "slo_class")
        self.programs_attained = counters("programs_attained", "Programs that ended in time.", "slo_class")
        self.retries = counters("retries", "Requests sent to another replica after one failed.")
        self.clamped = counters("clamped", "Targets tighter than the class's own that were not granted.", "what")
        self.reloads = counters("reloads", "Configurations taken over from the changed file.")
        self.queued = histograms("queue", "From arrival to the replica that answers.")
        self.ttft = histograms("ttft", "Time to first token of completed requests.")
        self.tbt = histograms("tbt", "Mean time between tokens of completed requests.", _GAPS)
        self.ttlt = histograms("ttlt", "Time to last token of completed requests.")

    def ended(self, ending: Ending, outcome: Outcome) -> None:
        """Count a request."""
        slo_class = outcome.slo_class
        self.requests.inc(slo_class, ending.value)
        self.gain.inc(slo_class, by=outcome.gain)
        self.attained.inc(slo_class, by=outcome.attained)
        if ending is Ending.COMPLETED:
            self.ttlt.observe(slo_class, outcome.ttlt_s)
            if not isnan(outcome.ttft_s):
                self.ttft.observe(slo_class, outcome.ttft_s)
            if not isnan(outcome.tbt_s):
                self.tbt.observe(slo_class, outcome.tbt_s)

    def program_ended(self, outcome: Outcome) -> None:
        """Count a program."""
        self.programs.inc(outcome.slo_class)
        self.programs_attained.inc(outcome.slo_class, by=outcome.attained)
        self.gain.inc(outcome.slo_class, by=outcome.gain)


class Live(Collector):
    """The replicas and the line as they are when somebody asks.

    Args:
        fleet: the replicas, which come and go.
        held: how many requests wait for one, by class.
        tenants: how tenants' shares are kept in step with other routers'; None: they are not.

    """

    def __init__(self, fleet: Fleet, held: Mapping[str, int], tenants: Exchange | None = None) -> None:
        self._fleet = fleet
        self._held = held
        self._tenants = tenants

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        fleet = self._fleet
        yield _gauge("held", "Requests that wait for a replica.", "slo_class", self._held)
        if self._tenants:
            text = "Whether tenants' shares hold over all routers."
            yield GaugeMetricFamily("tempo_router_tenants_shared", text, value=float(bool(self._tenants.shared)))
        for name, text, values in (
            ("in_flight", "Requests at the replica.", fleet.in_flight),
            ("replica_ready", "Whether the replica takes requests.", fleet.ready),
            ("replica_stale", "Whether it has said nothing of itself for too long.", fleet.stale),
            ("replica_ejected", "Whether it is left alone, because requests fare worse there.", fleet.ejected),
            ("replica_state_age_seconds", "Since it last said something of itself.", fleet.state_age_s),
            ("replica_tokens_per_second", "How fast the replica can go.", fleet.tokens_per_s),
        ):
            yield _gauge(name, text, "replica", values)


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    gauge = GaugeMetricFamily(f"tempo_router_{name}", text, labels=[label])
    for key, value in values.items():
        gauge.add_metric([key], float(value))
    return gauge
