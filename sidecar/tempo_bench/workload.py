"""What is sent and when: a seeded mix of three kinds of traffic, fixed before the first request leaves.

The same spec gives the same workload, byte for byte, whatever serves it; `fingerprint` proves it. Arrivals are an open
loop with exponential gaps. A *unit* is what an SLO is promised to: a chat, a tool call, or one whole program.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from random import Random
from typing import Any, ClassVar, Final

from tempo_bench.prompts import EARLIER, problem, program_prompt, question, tool_task
from tempo_core.slo import Pattern, SLOClass

EARLIER_CHARS: Final = 240
"""As much of each earlier answer as a later stage's prompt quotes."""


class Kind(StrEnum):
    """A kind of traffic; its value is the name of the SLO class that it is sent as."""

    CHAT = "chat"
    """One streamed answer."""
    TOOL = "tool"
    """One answer, used once it is complete."""
    AGENT = "agent"
    """A tree-of-thoughts program: dependent stages of parallel calls."""


PATTERNS: Final = {Kind.CHAT: Pattern.LATENCY, Kind.TOOL: Pattern.DEADLINE, Kind.AGENT: Pattern.COLLECTIVE}
"""The pattern that each kind's class must have."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the endpoint."""

    prompt: str
    max_tokens: int
    seed: int

    path: ClassVar = "chat/completions"
    delay_s: ClassVar = 0.0

    def fields(self, earlier: Sequence[str]) -> dict[str, Any]:
        """What it asks for, of a request's body; `earlier` are the answers of the stage before."""
        messages = [{"role": "user", "content": self.text(earlier)}]
        return {"messages": messages, "max_tokens": self.max_tokens, "temperature": 0, "seed": self.seed}

    def complaint(self, prompt_tokens: int, output_tokens: int) -> str | None:  # noqa: ARG002  # see `AnyCall`
        """Whatever the model answers is good."""
        return None

    def text(self, earlier: Sequence[str] = ()) -> str:
        """The prompt, quoting the start of each answer of the stage before."""
        return self.prompt.replace(EARLIER, "\n".join(f"- {answer[:EARLIER_CHARS]}" for answer in earlier))


@dataclass(frozen=True, slots=True)
class Unit:
    """A chat or a tool call (one stage of one call), or a program."""

    id: str
    kind: Kind
    at_s: float
    """Arrival, seconds after the start of the run."""
    stages: tuple[tuple[Call, ...], ...]

    @property
    def streams(self) -> bool:
        """Whether its answer is streamed: to a reader."""
        return self.kind is Kind.CHAT

    @property
    def program(self) -> bool:
        """Whether its calls belong together."""
        return self.kind is Kind.AGENT


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """What `build_workload` needs. `mix` counts units of each kind; `stages` is the paper's (version 3) tree."""

    rate_per_s: float
    seconds: float
    seed: int
    mix: Mapping[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 1))
    max_tokens: Mapping[Kind, int] = field(
        default_factory=lambda: {Kind.CHAT: 96, Kind.TOOL: 64, Kind.AGENT: 40},
    )
    stages: tuple[int, ...] = (3, 1, 3, 1)


@dataclass(frozen=True, slots=True)
class Workload:
    """Units in order of arrival."""

    spec: WorkloadSpec
    units: tuple[Unit, ...]

    @property
    def rate_per_s(self) -> float:
        """Units a second."""
        return self.spec.rate_per_s

    @property
    def fingerprint(self) -> str:
        """A short hash of every prompt, cap, seed and arrival."""
        return sha256(repr(self.units).encode()).hexdigest()[:16]


def build_workload(spec: WorkloadSpec) -> Workload:
    """The units that arrive within `spec.seconds`.

    Kinds come in shuffled blocks that hold the mix exactly, so that even a short run offers the mix that it names.
    """
    random = Random(spec.seed)  # noqa: S311  # reproducible on purpose
    units: list[Unit] = []
    block: list[Kind] = []
    at_s = random.expovariate(spec.rate_per_s)
    while at_s < spec.seconds:
        if not block:
            block = [kind for kind, count in spec.mix.items() for _ in range(count)]
            random.shuffle(block)
        kind = block.pop()
        name = f"{kind}-{spec.seed}-{len(units)}"
        units.append(Unit(name, kind, at_s, _stages(random, kind, spec)))
        at_s += random.expovariate(spec.rate_per_s)
    return Workload(spec, tuple(units))


def _stages(random: Random, kind: Kind, spec: WorkloadSpec) -> tuple[tuple[Call, ...], ...]:
    match kind:
        case Kind.CHAT:
            prompts = [[question(random)]]
        case Kind.TOOL:
            prompts = [[tool_task(random)]]
        case Kind.AGENT:
            statement, depth = problem(random), len(spec.stages)
            prompts = [
                [program_prompt(statement, stage, depth, branch, width) for branch in range(width)]
                for stage, width in enumerate(spec.stages)
            ]
    cap = spec.max_tokens[kind]
    return tuple(tuple(Call(prompt, cap, random.getrandbits(31)) for prompt in stage) for stage in prompts)


def check_classes(classes: Mapping[str, SLOClass]) -> None:
    """See that a pool has a class for each kind of traffic.

    Raises:
        ValueError: naming the class that is missing or of another pattern.

    """
    for kind, pattern in PATTERNS.items():
        found = classes.get(kind)
        if found is None or found.pattern is not pattern:
            has = f"it is {found.pattern.value}" if found else f"there are {', '.join(classes)}"
            raise ValueError(f"the benchmark needs an SLOClass {kind.value!r} of pattern {pattern.value}; {has}")
