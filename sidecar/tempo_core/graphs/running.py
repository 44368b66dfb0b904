"""A program that has not ended: the stages it had so far."""

from dataclasses import dataclass, field
from math import isnan, nan
from typing import Final

import numpy as np

from tempo_core.graphs.forecast import Forecast
from tempo_core.graphs.graph import MAX_STAGES, Graph, Stage
from tempo_core.graphs.library import Floats
from tempo_core.slo import SLOClass

A_TOOL_S: Final = 0.5
"""A client that is away for so long between two stages runs a tool; networks and glue code take less."""
_UNKNOWN: Final = (nan, nan, nan, nan)


@dataclass(slots=True)
class RunningStage:
    """A stage so far."""

    tool_s: float
    forecast: Forecast
    begun: int = 0
    estimated_tokens: int = 0
    """Prompt tokens of the calls that began, as estimated then."""
    answered: int = 0
    prompt_tokens: int = 0
    """Of the answered calls, as the two that follow."""
    output_tokens: int = 0
    longest_tokens: int = 0

    def begin(self, prompt_tokens: int) -> None:
        """A call of it arrived."""
        self.begun += 1
        self.estimated_tokens += prompt_tokens

    def end(self, prompt_tokens: int, output_tokens: int) -> None:
        """A call of it was answered."""
        self.answered += 1
        self.prompt_tokens += prompt_tokens
        self.output_tokens += output_tokens
        self.longest_tokens = max(self.longest_tokens, output_tokens)

    def summary(self) -> Stage:
        """What a graph keeps of it, once it was answered."""
        prompt, output = self.prompt_tokens / self.answered, self.output_tokens / self.answered
        return Stage(self.answered, prompt, output, self.longest_tokens, self.tool_s)

    def compared(self, *, over: bool) -> tuple[float, float, float, float]:
        """A row of `GraphLibrary.match`. Before a stage is over, its width and outputs are not known."""
        if over and self.answered:
            calls, prompt, output, _, tool_s = self.summary()
            return calls, prompt, output, tool_s
        return nan, self.estimated_tokens / max(self.begun, 1), nan, self.tool_s


@dataclass(slots=True)
class RunningProgram:
    """A program so far. Its stages may have gaps: calls that other nodes served."""

    slo: SLOClass
    stages: dict[int, RunningStage] = field(default_factory=dict)
    live: int = 0
    """Calls in flight."""
    final: bool = False
    """No call follows once these have ended."""
    touched_s: float = 0.0
    ended_s: float = nan
    """When the last answer ended."""

    def tool_s(self, now_s: float) -> float:
        """Time since the last answer; none while a call is in flight."""
        return 0.0 if self.live or isnan(self.ended_s) else max(now_s - self.ended_s, 0.0)

    @property
    def runs_tools(self) -> bool:
        """Whether it did so far."""
        return any(stage.tool_s > A_TOOL_S for stage in self.stages.values())

    def prefix(self, stage: int) -> Floats:
        """The stages up to and including this one, for `GraphLibrary.match`."""
        seen = [self.stages.get(at) for at in range(min(stage + 1, MAX_STAGES))]
        return np.array([s.compared(over=at < stage) if s else _UNKNOWN for at, s in enumerate(seen)])

    def due_s(self, stage: int) -> float:
        """The latest sub-deadline of the stages before this one; 0 if there is none."""
        return max((s.forecast.due_s for at, s in self.stages.items() if at < stage), default=0.0)

    def graph(self) -> Graph | None:
        """None unless it was seen whole, from its first stage to the last that was answered."""
        answered = {at: stage for at, stage in self.stages.items() if stage.answered}
        if not answered or max(answered) != len(answered) - 1:
            return None
        return Graph.of([answered[at].summary() for at in range(len(answered))])
