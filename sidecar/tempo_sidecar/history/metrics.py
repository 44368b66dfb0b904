"""The history's metrics, made when scraped."""

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from tempo_sidecar.history.keeper import HistoryKeeper


def history_metrics(keeper: HistoryKeeper) -> Iterable[Metric]:
    """What the keeper counts, and how much it holds."""
    counts = keeper.counts
    for name, text, value in (
        ("graphs", "Graphs of finished programs", keeper.graphs.graphs),
        ("running", "Programs that have not ended", keeper.graphs.running),
        ("pending", "Graphs waiting to be written", keeper.pending),
        ("unreadable", "Stored rows that were no graphs, when last read", counts.unreadable),
    ):
        yield GaugeMetricFamily(f"tempo_sidecar_history_{name}", text, value=value)
    for name, text, count in (
        ("written", "Graphs written to the store", counts.written),
        ("dropped", "Graphs that were not written because too many waited", counts.dropped),
        ("failures", "Times that the store could not be used", counts.failures),
    ):
        yield CounterMetricFamily(f"tempo_sidecar_history_{name}", text, value=count)
    calls = CounterMetricFamily("tempo_sidecar_history_calls", "Collective calls by forecast", labels=["forecast"])
    calls.add_metric(["pattern"], counts.matched)
    calls.add_metric(["class"], counts.unmatched)
    yield calls
