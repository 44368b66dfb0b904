"""What a class of traffic is promised."""

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf


class Pattern(StrEnum):
    """How a request's value depends on time."""

    LATENCY = "Latency"
    """Streamed to a reader: time to first token (TTFT) and time between tokens (TBT)."""
    DEADLINE = "Deadline"
    """Used once complete: time to last token (TTLT)."""
    COLLECTIVE = "Collective"
    """One call of a program of many; the program's end counts."""
    BEST_EFFORT = "BestEffort"
    """Worth the same whenever it ends."""


@dataclass(frozen=True, slots=True)
class Objectives:
    """Targets in seconds; `inf` where the pattern has no such target.

    A collective class has either `end_to_end_s`, for the whole program, or `per_stage_s`, which grants that much for
    each stage that the program turns out to have.
    """

    ttft_s: float = inf
    tbt_s: float = inf
    ttlt_s: float = inf
    end_to_end_s: float = inf
    per_stage_s: float = inf


@dataclass(frozen=True, slots=True)
class GainRule:
    """What a token is worth on time, and how fast that fades when late.

    `decay` is the exponent alpha of the paper's `min(1, SLO / measured) ** alpha`; `inf` is all or nothing, counted as
    service goodput.
    """

    weight: float = 1.0
    input_token: float = 1.0
    output_token: float = 2.0
    decay: float = 1.0

    @property
    def hard(self) -> bool:
        """Whether a late token is worth nothing."""
        return self.decay == inf


class Overload(StrEnum):
    """What becomes of a request that the router has held for as long as its class may wait."""

    SHED = "Shed"
    """It is refused."""
    QUEUE = "Queue"
    """It goes on waiting, and is served late."""
    DEGRADE = "Degrade"
    """It goes on as best effort."""


@dataclass(frozen=True, slots=True)
class SLOClass:
    """One class of traffic, as every part of Tempo knows it."""

    name: str
    pattern: Pattern
    objectives: Objectives = field(default_factory=Objectives)
    gain: GainRule = field(default_factory=GainRule)
    max_queue_time_s: float = inf
    overload: Overload = Overload.QUEUE

    def deadline_s(self, stage: int = 0) -> float:
        """Seconds that a response has, from its own arrival, or for a collective class from its program's arrival.

        `stage` counts from 0. A stage's sub-deadline under `per_stage_s` is cumulative, including that stage.
        """
        o = self.objectives
        if self.pattern is Pattern.DEADLINE:
            return o.ttlt_s
        if self.pattern is Pattern.COLLECTIVE:
            return min(o.end_to_end_s, o.per_stage_s * (stage + 1))
        return inf
