"""What is sent, and how much of it."""

from dataclasses import dataclass, replace
from typing import Final

from tempo_bench.routers.requests import Shape

MEMORY: Final = "memory"
"""The case whose row says what a router holds after all its requests."""


@dataclass(frozen=True, slots=True)
class Case:
    """Requests of one shape, so many at once."""

    name: str
    concurrency: int
    shape: Shape
    title: str


CASES: Final = (
    Case("whole", 1, Shape(), "small chat completion, whole answer"),
    Case("whole", 16, Shape(), "small chat completion, whole answer"),
    Case("whole", 256, Shape(), "small chat completion, whole answer"),
    Case("stream", 16, Shape(chunks=100), "stream of 100 chunks as fast as they go"),
    Case("paced", 64, Shape(chunks=100, gap_ms=20), "stream of 100 chunks, 20 ms apart"),
    Case("large", 16, Shape(prompt_bytes=100_000), "prompt of 100 KB, whole answer"),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of what is sent: all `cases` in each of `rounds`, then requests until memory is read."""

    cases: tuple[Case, ...] = CASES
    rounds: int = 6
    turn_s: float = 1.25
    """How long each router sends at each case in each round; what is in flight then is followed to its end."""
    requests: int = 100_000
    """How many each router has answered when its memory is read..."""
    memory_s: float = 40.0
    """...but it gets no longer than this for those that are left after the rounds."""

    def scaled(self, factor: float) -> "Plan":
        """The same with less, or more, of everything."""
        return replace(
            self,
            turn_s=self.turn_s * factor,
            requests=round(self.requests * factor),
            memory_s=self.memory_s * factor,
        )
