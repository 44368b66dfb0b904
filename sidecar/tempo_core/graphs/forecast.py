"""What the graphs that match a running program say of it: its sub-deadline, and the work that is left.

A class that gives each stage its own time has said when each is due. Of one time for the whole program, the paper
gives stage s the share `phi(s) = t_through_s / t_total`, stage s included. Here a share is taken each time that a stage
begins, of what is left then: what earlier stages saved goes to all those to come, and as long as none saves or
overdraws anything the outcome is phi(s) to the letter.

A stage's time is that of its longest call, in output tokens, at the pace that calls lately had, and the time of the
tools before it is as it was measured. How long stages took is not kept: that depends on the load of the day, and on
the sub-deadlines themselves, so that shares learned from it would follow their own shadow.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Final

import numpy as np

from tempo_core.graphs.library import Matches
from tempo_core.programs import Call
from tempo_core.slo import SLOClass

_LEAST_SHARE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of a program whose stage begins. Work left is that of the stages after this one, all calls."""

    due_s: float
    """Absolute sub-deadline of the stage."""
    latest_s: float
    """When the stage must end, absolute, for the program to be in time if the later stages go at their usual pace."""
    phi: float = 1.0
    """The share of the program's time, from its arrival to its expected deadline, that is over then; in (0, 1]."""
    stages_left: float = 0.0
    prompt_tokens_left: float = 0.0
    output_tokens_left: float = 0.0
    similarity: float = 0.0
    """Of the best match, in (0, 1]; 0: none matched, and the class's own rule stands."""
    tools: bool = False
    """Whether the program runs tools between its stages, or is expected to; nobody knows how long they will take."""


def unmatched(call: Call) -> Forecast:
    """The class's own rule."""
    return Forecast(call.deadline_s, call.deadline_s)


def forecast(matches: Matches, call: Call, slo: SLOClass, pace_s: float, now_s: float, not_before_s: float) -> Forecast:
    """The forecast for the stage of `call`, which begins at `now_s`.

    Args:
        matches: the graphs that its program matches.
        call: with the deadline that the class, or the caller, grants if this stage is the last.
        slo: the program's class.
        pace_s: seconds an output token.
        now_s: absolute, as is what follows.
        not_before_s: the sub-deadline of the stage before; this one's is no earlier, within the program's.

    """
    due_s, phi = call.deadline_s, 1.0
    if isfinite(slo.objectives.end_to_end_s) and not isfinite(slo.objectives.per_stage_s):
        due_s, phi = _sub_deadline(matches, call, slo, pace_s, now_s, not_before_s)
    weight = matches.weight
    return Forecast(
        due_s=due_s,
        latest_s=max(_latest_s(matches, call, slo, pace_s), due_s),
        phi=phi,
        stages_left=float(weight @ matches.stages) - call.stage - 1.0,
        prompt_tokens_left=float(weight @ matches.prompt_after),
        output_tokens_left=float(weight @ matches.output_after),
        similarity=matches.similarity,
    )


def _latest_s(matches: Matches, call: Call, slo: SLOClass, pace_s: float) -> float:
    """The program's deadline, less what the later stages take."""
    stages, later_s = matches.stages, pace_s * matches.work_after + matches.tool_after_s
    granted_s = np.minimum(slo.objectives.end_to_end_s, slo.objectives.per_stage_s * stages)
    ends_s = np.maximum(call.program_arrival_s + granted_s, call.deadline_s)
    return float(matches.weight @ (ends_s - later_s))


def _sub_deadline(
    matches: Matches, call: Call, slo: SLOClass, pace_s: float, now_s: float, not_before_s: float
) -> tuple[float, float]:
    """The stage's sub-deadline and its share of the program's time, by the mean over the matches."""
    arrival_s = call.program_arrival_s
    end_s = max(arrival_s + slo.objectives.end_to_end_s, call.deadline_s)
    stage_s = pace_s * matches.work
    share = stage_s / (stage_s + pace_s * matches.work_after + matches.tool_after_s)
    due_s = min(now_s, end_s) + float(matches.weight @ share) * max(end_s - now_s, 0.0)
    due_s = min(max(due_s, not_before_s), end_s)
    phi = (due_s - arrival_s) / (end_s - arrival_s) if end_s > arrival_s else 1.0
    return due_s, min(max(phi, _LEAST_SHARE), 1.0)
