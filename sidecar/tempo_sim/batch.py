"""What an engine works on: its requests, a step's share of them, and what it counts."""

from dataclasses import dataclass, field
from math import inf, nan

from tempo_core.snapshot import Entry, Job
from tempo_sim.kv import Holding


class Live:
    """A request in the engine. Only `job` and what it has so far are for the policy to see.

    Args:
        job: what the policy is told.
        output: tokens after which it ends.
        holding: its blocks.

    Attributes:
        stamps: when each of its tokens appeared, absolute seconds.
        length: tokens that are known of it: its prompt and what came.
        end: its length when it ends.
        computed: tokens of it in the cache.
        place: where the last plan put it, from 0; inf if the plan did not know it.
        resting: its entry while it waits, which no step changes.
        lost: how often it lost its place.

    """

    __slots__ = ("computed", "end", "holding", "job", "length", "lost", "place", "resting", "stamps")

    def __init__(self, job: Job, output: int, holding: Holding) -> None:
        self.job = job
        self.holding = holding
        self.stamps: list[float] = []
        self.length = job.prompt_tokens
        self.end = job.prompt_tokens + output
        self.computed = 0
        self.place = inf
        self.resting: Entry | None = None
        self.lost = 0

    def entry(self) -> Entry:
        """What the policy sees of it while it runs."""
        stamps = self.stamps
        return Entry(self.job, len(stamps), self.computed, True, stamps[0] if stamps else nan)

    def rest(self, now_s: float) -> None:
        """It waits from now on."""
        first_s = self.stamps[0] if self.stamps else nan
        self.resting = Entry(self.job, len(self.stamps), 0, first_token_s=first_s, waiting_since_s=now_s)


@dataclass(slots=True)
class Counts:
    """What a replica did."""

    steps: int = 0
    passes: int = 0
    planned_preemptions: int = 0
    """Because a plan said so."""
    memory_preemptions: int = 0
    """Because memory was short."""
    prefilled_tokens: int = 0
    """Prompt tokens computed, and whatever a preempted request computed again."""
    cached_tokens: int = 0
    """Tokens that the prefix cache saved from being computed."""


@dataclass(slots=True)
class Step:
    """What a step computes."""

    left: int
    """Tokens of its budget."""
    longest: int
    """Tokens of one prompt that it may compute."""
    decodes: list[Live] = field(default_factory=list)
    """Who gets its next token for one token's work."""
    chunks: list[tuple[Live, int]] = field(default_factory=list)
    """Everybody else, and how many tokens of it."""
    admitted: bool = False
    preempted: bool = False

    def add(self, live: Live, tokens: int) -> None:
        """Give a request some of what is left."""
        self.left -= tokens
        if tokens == 1 == live.length - live.computed:
            self.decodes.append(live)
        else:
            self.chunks.append((live, tokens))
