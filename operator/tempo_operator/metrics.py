"""The operator's own metrics, `tempo_operator_*`."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector


def registry(leading: Callable[[], bool], pools: Callable[[], int], requests: Callable[[], int]) -> CollectorRegistry:
    """A registry that reads them when it is scraped."""

    class Requests(Collector):
        def collect(self) -> list[Metric]:
            text = "Requests sent to the Kubernetes API, watches apart."
            return [CounterMetricFamily("tempo_operator_api_requests", text, value=requests())]

    found = CollectorRegistry()
    for name, text, read in (
        ("leading", "1 where this replica acts, 0 where it stands by.", leading),
        ("pools", "TempoPools that this replica knows.", pools),
    ):
        Gauge(f"tempo_operator_{name}", text, registry=found).set_function(read)
    found.register(Requests())
    return found
