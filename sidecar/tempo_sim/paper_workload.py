"""The workload of the paper's experiments: its lengths, SLOs, mix and arrivals, from a seed.

Chats are the table's single chatbot calls, tool calls its single deep-research calls. Collective units are, in turn,
trees of thoughts (the chatbot's compound row) and deep research. Where the paper leaves a choice:

* A compound row counts all calls of a program: the chatbot's is 14 times its single row, which is the tree of 3, 1, 9
  and 1 calls, and deep research's is 6.5 times: six stages, and in every other program two searches side by side.
* A program's answers share its row's total in proportion to draws from the single row.
* Its prompts share theirs. Each has, in this order, the problem, equal in all calls; quotes of the answers of the stage
  before, all of them or as much of each as makes half of the total; and an instruction of its own. So a call shares a
  prefix with all of its program, and a longer one with its stage.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate, count, islice, pairwise
from random import Random
from types import MappingProxyType
from typing import Final

from tempo_core.slo import GainRule, Objectives, Pattern, SLOClass
from tempo_sim.arrivals import Arrivals, Poisson
from tempo_sim.paper_lengths import (
    CHAT_INPUT,
    CHAT_OUTPUT,
    RESEARCH_CALL_INPUT,
    RESEARCH_CALL_OUTPUT,
    RESEARCH_INPUT,
    RESEARCH_OUTPUT,
    TREE_INPUT,
    TREE_OUTPUT,
    lengths,
)
from tempo_sim.workload import BLOCK_TOKENS, SimCall, SimUnit

QUOTED: Final = 0.5
"""Earlier answers are at most this share of a program's prompts."""

PROBLEM: Final = 0.75
"""The problem's share of what is not quoted."""

Shape = tuple[int, ...]
"""Calls of each stage."""


class Kind(StrEnum):
    """A kind of unit."""

    CHAT = "chat"
    TOOL = "tool"
    TREE = "tree"
    """A tree of thoughts."""
    RESEARCH = "research"
    """Deep research."""


SLO_CLASS: Final = MappingProxyType({Kind.CHAT: "chat", Kind.TOOL: "tool", Kind.TREE: "agent", Kind.RESEARCH: "agent"})
"""The class of each kind, by its name in `paper_classes`."""


_ROWS: Final = MappingProxyType(
    {
        Kind.CHAT: (CHAT_INPUT, CHAT_OUTPUT),
        Kind.TOOL: (RESEARCH_CALL_INPUT, RESEARCH_CALL_OUTPUT),
        Kind.TREE: (TREE_INPUT, TREE_OUTPUT),
        Kind.RESEARCH: (RESEARCH_INPUT, RESEARCH_OUTPUT),
    }
)
"""Prompts and answers of a unit, all of its calls together."""

_ANSWER: Final = MappingProxyType({Kind.TREE: CHAT_OUTPUT, Kind.RESEARCH: RESEARCH_CALL_OUTPUT})
"""For programs: what the proportions of their calls' answers are drawn from."""


def paper_classes(*, decay: float = 1.0, slo_scale: float = 1.0) -> dict[str, SLOClass]:
    """The paper's SLOs, by name: TTFT 2 s and TBT 100 ms, TTLT 20 s, 20 s a stage; `slo_scale` times as long."""
    gain = GainRule(decay=decay)
    chat = Objectives(ttft_s=2.0 * slo_scale, tbt_s=0.1 * slo_scale)
    classes = (
        SLOClass("chat", Pattern.LATENCY, chat, gain),
        SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=20.0 * slo_scale), gain),
        SLOClass("agent", Pattern.COLLECTIVE, Objectives(per_stage_s=20.0 * slo_scale), gain),
    )
    return {slo.name: slo for slo in classes}


@dataclass(frozen=True, slots=True)
class PaperSpec:
    """What `paper_workload` needs."""

    rate_per_s: float
    """Units a second."""
    seconds: float
    seed: int
    arrivals: Arrivals = field(default_factory=Poisson)
    mix: Mapping[Kind, int] = field(
        default_factory=lambda: {Kind.CHAT: 2, Kind.TOOL: 2, Kind.TREE: 1, Kind.RESEARCH: 1},
    )
    """Units of each kind in a block; the default is 1:1:1 by pattern."""
    shapes: Mapping[Kind, Sequence[Shape]] = field(
        default_factory=lambda: {Kind.TREE: [(3, 1, 9, 1)], Kind.RESEARCH: [(1,) * 6, (1, 2, 1, 1, 1, 1)]},
    )
    """A program has one of these, drawn evenly. The paper's third version has trees of (3, 1, 3, 1)."""
    max_tokens: Mapping[Kind, int] = field(
        default_factory=lambda: {Kind.CHAT: 2048, Kind.TOOL: 8192, Kind.TREE: 4096, Kind.RESEARCH: 8192},
    )
    """The cap on each answer; longer ones end there."""
    block_tokens: int = BLOCK_TOKENS
    """Tokens in a block of the engine's prefix cache."""

    def __post_init__(self) -> None:
        if not self.rate_per_s > 0.0:
            raise ValueError(f"the rate must be above 0 units a second, not {self.rate_per_s:g}")
        if not any(self.mix.values()):
            raise ValueError("the mix names no kind of unit")


def paper_workload(spec: PaperSpec) -> list[SimUnit]:
    """The units that arrive within `spec.seconds`, in order.

    Kinds come in shuffled blocks that hold the mix exactly. When and what are drawn apart: another rate or way to
    arrive sends the same units.
    """
    when, what = Random(f"{spec.seed} when"), Random(f"{spec.seed} what")  # noqa: S311  # reproducible on purpose
    kinds, ids = _kinds(what, spec.mix), count()
    units: list[SimUnit] = []
    for at_s in accumulate(spec.arrivals.gaps(when, spec.rate_per_s)):
        if at_s >= spec.seconds:
            break
        kind = next(kinds)
        name = f"{kind}-{spec.seed}-{len(units)}"
        units.append(SimUnit(name, SLO_CLASS[kind], at_s, _stages(what, kind, spec, ids)))
    return units


def _kinds(random: Random, mix: Mapping[Kind, int]) -> Iterator[Kind]:
    block = [kind for kind, number in mix.items() for _ in range(number)]
    while True:
        random.shuffle(block)
        yield from block


def _stages(random: Random, kind: Kind, spec: PaperSpec, ids: Iterator[int]) -> tuple[tuple[SimCall, ...], ...]:
    prompt, answer = (random.choice(lengths(row)) for row in _ROWS[kind])
    cap = spec.max_tokens[kind]
    if kind not in _ANSWER:
        return ((SimCall(prompt, min(answer, cap), cap),),)
    shape = random.choice(spec.shapes[kind])
    parts = iter(_apportion(answer, random.choices(lengths(_ANSWER[kind]), k=sum(shape))))
    answers = [[min(part, cap) for part in islice(parts, width)] for width in shape]
    return _program(prompt, answers, cap, spec.block_tokens, ids)


def _program(
    prompt_tokens: int, answers: Sequence[Sequence[int]], cap: int, block_tokens: int, ids: Iterator[int]
) -> tuple[tuple[SimCall, ...], ...]:
    """The calls that give these answers, stage by stage; their prompts have `prompt_tokens` together, each at least 1.

    `ids` names new blocks.
    """
    shape = [len(stage) for stage in answers]
    before = [0, *(sum(stage) for stage in answers[:-1])]
    quotable = sum(width * tokens for width, tokens in zip(shape, before, strict=True))
    share = min(1.0, QUOTED * prompt_tokens / max(quotable, 1))
    quotes = [int(share * tokens) for tokens in before]
    fresh = prompt_tokens - sum(width * quote for width, quote in zip(shape, quotes, strict=True))
    own = iter(_apportion(fresh, [1] * sum(shape)))
    problem = int(PROBLEM * fresh / sum(shape))
    common = tuple(islice(ids, problem // block_tokens))
    stages: list[tuple[SimCall, ...]] = []
    for outputs, quote in zip(answers, quotes, strict=True):
        prefix = common + tuple(islice(ids, (problem + quote) // block_tokens - len(common)))
        stages.append(tuple(SimCall(quote + next(own), output, cap, prefix=prefix) for output in outputs))
    return tuple(stages)


def _apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Whole parts of `total` in proportion to the weights, at least 1 each."""
    shares = [round(total * part / sum(weights)) for part in accumulate(weights, initial=0)]
    return [max(1, b - a) for a, b in pairwise(shares)]
