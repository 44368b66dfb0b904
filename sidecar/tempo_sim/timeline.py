"""A run over time: how many requests ran and waited, and what was earned, in bins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tempo_core.policies import Policy
from tempo_core.snapshot import Plan, Snapshot
from tempo_sim.units import UnitResult

BINS: Final = 60
_HOLD_S: Final = 5.0
"""A frame lasts no longer; after it without a pass the engine is idle."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Of `BINS` bins, each `bin_s` long."""

    policy: str
    bin_s: float
    running: Sequence[float]
    """Requests that ran, of the replica whose pass was the latest by the middle of the bin."""
    waiting: Sequence[float]
    gain_per_s: Mapping[str, Sequence[float]]
    """Of the units that ended in the bin, by class."""


class Watched:
    """A policy that counts what it is shown; nothing is added to the engine's own loop."""

    def __init__(self, policy: Policy) -> None:
        self.watched = policy
        self._seen: list[tuple[float, int, int]] = []

    def __call__(self, snapshot: Snapshot, now_s: float) -> Plan:
        """See `tempo_core.policies.Policy`."""
        plan = self.watched(snapshot, now_s)
        running = min(len(snapshot.entries), plan.max_running)  # from the step on that the pass is for
        self._seen.append((now_s, running, len(snapshot.entries) - running))
        return plan

    def timeline(self, name: str, units: Sequence[UnitResult]) -> Timeline:
        """Of the run that has ended, with at least one unit."""
        bin_s = max(unit.ended_s for unit in units) / BINS
        at_s, running, waiting = np.array(sorted(self._seen)).T  # replicas do not take turns
        middle_s = (np.arange(BINS) + 0.5) * bin_s
        latest = np.searchsorted(at_s, middle_s, side="right") - 1
        known = (latest >= 0) & (middle_s - at_s[latest] <= _HOLD_S)
        return Timeline(
            name,
            bin_s,
            np.where(known, running[latest], 0.0).tolist(),
            np.where(known, waiting[latest], 0.0).tolist(),
            {of: _earned(of, units, bin_s) for of in sorted({unit.slo_class for unit in units})},
        )


def _earned(slo_class: str, units: Sequence[UnitResult], bin_s: float) -> list[float]:
    earned = [0.0] * BINS
    for unit in units:
        if unit.slo_class == slo_class:
            earned[min(int(unit.ended_s / bin_s), BINS - 1)] += unit.gain / bin_s
    return earned
