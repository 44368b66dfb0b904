"""What a format's reader makes of a file, before a class is given to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from tempo_sim.workload import BLOCK_TOKENS, SimCall


@dataclass(frozen=True, slots=True)
class Options:
    """How a trace is taken."""

    prompt_scale: float = 1.0
    """Prompts are this many times as long, their shared prefixes too; answers stay."""
    max_tokens: int = 4096
    """The cap of a call whose trace has none; the next power of two where the answer is longer."""
    block_tokens: int = BLOCK_TOKENS
    """Tokens in a block of the engine's prefix cache."""
    chars_per_token: float = 4.0
    """For traces that count characters."""
    idle_s: float = 300.0
    """A session that does nothing for longer comes back as a program of its own, as in the router."""
    turns: bool = True
    """Whether an answer to the user ends a program, too."""
    longest_tokens: float = inf
    """A call that has more, prompt and answer, is refused: what the engine holds."""
    seed: int = 0
    """For arrivals where the trace has none, and for shares of classes."""

    def __post_init__(self) -> None:
        positive = {
            name: getattr(self, name) for name in ("prompt_scale", "max_tokens", "block_tokens", "chars_per_token")
        }
        for name, value in positive.items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, not {value:g}")

    def call(self, prompt_tokens: float, output_tokens: int, delay_s: float = 0.0) -> SimCall:
        """A call of a trace without caps, its prompt scaled; prompt and answer have at least one token."""
        output = max(output_tokens, 1)
        cap = self.max_tokens if output <= self.max_tokens else 1 << (output - 1).bit_length()
        return SimCall(max(round(prompt_tokens * self.prompt_scale), 1), output, cap, delay_s)


@dataclass(frozen=True, slots=True)
class Draft:
    """A unit that has no class yet, unless the trace named one."""

    line: int
    """Where it starts in its file."""
    at_s: float
    stages: tuple[tuple[SimCall, ...], ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    """The text fields of its first row, for rules that go by them."""
    id: str = ""
    slo_class: str | None = None
    tenant: str = ""
    of_session: bool = False
    """Whether it was cut from an agent's session, which may leave one call of it."""

    @property
    def program(self) -> bool:
        """Whether it is more than one call, or could have been."""
        return self.of_session or sum(map(len, self.stages)) > 1

    @property
    def longest_tokens(self) -> int:
        """Prompt and answer of its longest call."""
        return max(call.prompt_tokens + call.output_tokens for stage in self.stages for call in stage)
