"""What the scheduler plug-in inside the engine says of itself, by way of a small status file."""

import logging
from collections.abc import Iterable
from math import inf
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from tempo_api.reload import file_stamp
from tempo_core.steptime import StepTime

log = logging.getLogger(__name__)

STALLED_S: Final = 60.0
"""A step takes milliseconds to seconds; the first of a new shape may compile kernels for much longer."""
_UNSEEN_S: Final = 10.0
_STALE_S: Final = 10.0
_LARGEST: Final = 1 << 16
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class PluginStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The file's content; `unknown` if there is none, or if its writer has been silent for ten seconds."""

    state: Literal["active", "fallback", "unknown"] = "unknown"
    reason: str = ""
    policy: str = ""
    steps: int = 0
    passes: int = 0
    pass_seconds_mean: float = 0.0
    preemptions: int = 0
    malformed: int = 0
    running: _Count = 0
    waiting: _Count = 0
    places: _Count = 0
    """Requests that the engine runs together; 0: unknown."""
    cache_used: _Share = 0.0
    """Share of the key-value cache's blocks that requests hold."""
    step_time: dict[str, float] = {}
    reasons: dict[str, int] = {}
    written_s: float = 0.0

    @property
    def learned(self) -> StepTime | None:
        """The step-time fit; None before the first step."""
        return msgspec.convert(self.step_time, StepTime) if self.step_time and self.steps else None


UNKNOWN: Final = PluginStatus()


class StatusFile:
    """Reads the file at `path` again whenever it has changed; there may be none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._status = UNKNOWN

    def read(self, now_s: float) -> PluginStatus:
        """The status at `now_s` (epoch). Never raises: whatever can't be used is `UNKNOWN`."""
        if self._path is None:
            return UNKNOWN
        stamp = file_stamp(self._path)
        if stamp != self._seen:
            self._seen, self._status = stamp, _load(self._path)
        return self._status if now_s - self._status.written_s <= _STALE_S else UNKNOWN


class StallWatch:
    """Notices an engine that runs requests and makes no step: a hung device, of which vLLM's health says nothing.

    Only where the plug-in is active does the number of steps mean anything.
    """

    def __init__(self) -> None:
        self._steps = -1
        self._since_s = self._seen_s = -inf
        self._stalled = False

    def stalled(self, status: PluginStatus, now_s: float) -> bool:
        """Whether that has lasted for `STALLED_S`; to be asked every few seconds at least, or it begins anew."""
        working = status.state == "active" and status.running
        if not working or status.steps != self._steps or now_s - self._seen_s > _UNSEEN_S:
            self._steps, self._since_s = status.steps, now_s
        before, self._seen_s, self._stalled = self._stalled, now_s, now_s - self._since_s >= STALLED_S
        if self._stalled and not before:
            log.warning("The engine runs %d requests and has made no step for %g s.", status.running, STALLED_S)
        return self._stalled


def _load(path: Path) -> PluginStatus:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_LARGEST), type=PluginStatus)
    except (OSError, msgspec.DecodeError):
        return UNKNOWN


def status_metrics(status: PluginStatus) -> Iterable[Metric]:
    """The status as Prometheus metrics; only the state itself where nothing else is known."""
    active = GaugeMetricFamily(
        "tempo_engine_scheduler_active", "1 if Tempo orders the engine's queues, 0 if not, -1 if unknown"
    )
    active.add_metric([], {"active": 1.0, "fallback": 0.0, "unknown": -1.0}[status.state])
    yield active
    if status.state == "unknown":
        return
    for name, text, value in (
        ("running", "Requests running in the engine", status.running),
        ("waiting", "Requests waiting in the engine", status.waiting),
        ("places", "Requests that the engine runs together", status.places),
        ("cache_used_ratio", "Share of the key-value cache's blocks that requests hold", status.cache_used),
        ("pass_seconds_mean", "Mean duration of a scheduler pass", status.pass_seconds_mean),
    ):
        yield GaugeMetricFamily(f"tempo_engine_{name}", text, value=value)
    for name, text, count in (
        ("steps", "Engine steps", status.steps),
        ("scheduler_passes", "Scheduler passes", status.passes),
        ("preemptions", "Requests preempted by the scheduler", status.preemptions),
        ("facts_malformed", "Metadata entries that the engine ignored", status.malformed),
    ):
        yield CounterMetricFamily(f"tempo_engine_{name}", text, value=count)
    step_time = GaugeMetricFamily("tempo_engine_step_time", "Coefficients of the step-time fit", labels=["term"])
    for term, seconds in status.step_time.items():
        step_time.add_metric([term], seconds)
    yield step_time
    reasons = CounterMetricFamily("tempo_engine_decisions", "Scheduling decisions by reason", labels=["reason"])
    for reason, total in status.reasons.items():
        reasons.add_metric([reason], total)
    yield reasons
