"""A metric's children at hand: to find one by its labels costs prometheus-client more than to count does."""

from typing import TypeVar

from prometheus_client.metrics import MetricWrapperBase

Metric = TypeVar("Metric", bound=MetricWrapperBase)


class Children(dict[str | tuple[str, ...], Metric]):
    """`metric.labels(...)` by the label's value, or the labels' values, each looked up once.

    Args:
        metric: one with labels, of which there are few values.

    """

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, values: str | tuple[str, ...]) -> Metric:
        child = self[values] = self._metric.labels(*([values] if isinstance(values, str) else values))
        return child
