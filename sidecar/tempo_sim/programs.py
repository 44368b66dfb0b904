"""What is said of programs to come, as a simulated sidecar forecasts it, and the truth."""

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np

from tempo_core.gain import Outcome
from tempo_core.graphs import Forecast, Matches, forecast
from tempo_core.programs import Call
from tempo_core.slo import SLOClass
from tempo_sim.lengths import answer_tokens
from tempo_sim.workload import SimCall, SimUnit

_PACE_S: Final = 0.03
"""Seconds an output token; it only weighs tools' time against the calls'."""


class GraphModel(Protocol):
    """What `tempo_core.graphs.PatternGraphs` does for a run."""

    def begin(self, call: Call, slo: SLOClass, prompt_tokens: int, now_s: float, *, final: bool = False) -> Forecast:
        """A call arrives."""
        ...

    def end(self, call: Call, outcome: Outcome, now_s: float) -> object:
        """It ended."""
        ...


class OracleGraphs:
    """Knows the truth: every program matches the graph that it will turn out to be."""

    def __init__(self, units: Sequence[SimUnit]) -> None:
        self._stages = {unit.id: unit.stages for unit in units}

    def begin(self, call: Call, slo: SLOClass, prompt_tokens: int, now_s: float, *, final: bool = False) -> Forecast:  # noqa: ARG002  # see `GraphModel`
        """See `GraphModel`."""
        stages = self._stages[call.program]
        later = stages[call.stage + 1 :]
        calls = [c for stage in later for c in stage]
        after = (
            sum(map(_longest, later)),
            sum(min(c.delay_s for c in stage) for stage in later),
            sum(c.prompt_tokens for c in calls),
            sum(map(answer_tokens, calls)),
        )
        work = _longest(stages[call.stage])
        truth = Matches(np.ones(1), 1.0, *(np.array([part]) for part in (len(stages), work, *after)))
        return forecast(truth, call, slo, _PACE_S, now_s, now_s)

    def end(self, call: Call, outcome: Outcome, now_s: float) -> None:
        """There is nothing to learn."""


def _longest(stage: Sequence[SimCall]) -> int:
    return max(map(answer_tokens, stage))
