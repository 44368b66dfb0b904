"""What is offered to a simulated pool: units with an SLO, made of calls, in order of arrival."""

from dataclasses import dataclass
from typing import Final

BLOCK_TOKENS: Final = 16
"""Tokens in a block of the prefix cache, vLLM's default."""


@dataclass(frozen=True, slots=True)
class SimCall:
    """One request to the engine."""

    prompt_tokens: int
    output_tokens: int
    """How long the answer turns out; only the engine and the oracle know."""
    max_tokens: int
    delay_s: float = 0.0
    """Time between the end of the stage before it (or the unit's arrival) and this call: a tool's, a user's."""
    prefix: tuple[int, ...] = ()
    """Identities of the prompt's leading full blocks, for the prefix cache; equal ones hold equal tokens."""


@dataclass(frozen=True, slots=True)
class SimUnit:
    """What has an SLO: a single call (one stage of one call), or a program of several stages."""

    id: str
    slo_class: str
    at_s: float
    """Arrival, seconds after the start of the run."""
    stages: tuple[tuple[SimCall, ...], ...]
    """Calls of a stage run together; a stage starts when the one before it has ended."""
    tenant: str = ""

    @property
    def calls(self) -> tuple[SimCall, ...]:
        """All calls, stage after stage."""
        return tuple(call for stage in self.stages for call in stage)
