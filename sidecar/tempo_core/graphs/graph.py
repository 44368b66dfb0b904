"""A finished program in less than 0.2 KB: its stages, and the tool time between them.

A stage is kept as a summary of its calls, not call by call: what the match compares (how many calls, of which mean
lengths) and what time and work follow from (the sums, and the longest response, which the stage waits for). So stages
compare whatever their widths are, and a stage of a thousand calls takes no more room than one of a single call.

Numbers are kept on a logarithmic scale, one byte each: relative accuracy is what lengths are compared by, 3% is far
below what differs from run to run, and no number can be negative, infinite or out of range. Beyond `MAX_STAGES` only
the sums of what followed are kept: the first stages tell programs apart, the others count as work.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import expm1, isfinite, log1p
from typing import Final, NamedTuple

MAX_STAGES: Final = 32
"""Stages of which a graph keeps more than their sums."""


class Stage(NamedTuple):
    """The calls of one stage. Means are over its calls."""

    calls: float
    prompt_tokens: float
    """Mean."""
    output_tokens: float
    """Mean."""
    longest_tokens: float
    """Of the longest response."""
    tool_s: float
    """From the end of the stage before to its first call: tools, or a person who thinks."""


class GraphError(ValueError):
    """What should be a packed graph is none."""


_HEADER: Final = struct.Struct("<BBH4f")
_VERSION: Final = 1
_STEPS: Final = 16.0  # a step of e^(1/16) is 6.4%, and the byte's largest number 8.3 million
_SCALE: Final = Stage(1.0, 1.0, 1.0, 1.0, 100.0)  # tool time in hundredths of a second
_LARGEST: Final = 1e12
_MAX_COUNT: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class Graph:
    """A finished program. `packed` is its identity: equal graphs have equal bytes.

    Build it with `of` or `unpack`, which both round to what the bytes can hold, so that a graph read back from a store
    is the graph that was written.
    """

    stages: tuple[Stage, ...]
    """At least one, at most `MAX_STAGES`."""
    count: int
    """All its stages."""
    tail: tuple[float, float, float, float]
    """Sums over the stages beyond `stages`: prompt tokens, output tokens, longest responses, tool seconds."""
    packed: bytes

    @classmethod
    def of(cls, stages: Sequence[Stage]) -> "Graph":
        """The graph of these stages, in their order. Numbers that make no sense are brought into range.

        Raises:
            GraphError: if there is no stage.

        """
        beyond = stages[MAX_STAGES:]
        tail = (
            sum(stage.calls * stage.prompt_tokens for stage in beyond),
            sum(stage.calls * stage.output_tokens for stage in beyond),
            sum(stage.longest_tokens for stage in beyond),
            sum(stage.tool_s for stage in beyond),
        )
        kept, count = stages[:MAX_STAGES], min(len(stages), _MAX_COUNT)
        header = _HEADER.pack(_VERSION, len(kept), count, *(_quantity(value) for value in tail))
        return cls.unpack(header + bytes(_code(v, s) for stage in kept for v, s in zip(stage, _SCALE, strict=True)))

    @classmethod
    def unpack(cls, packed: bytes) -> "Graph":
        """The graph of these bytes, which may come from anywhere.

        Raises:
            GraphError: if they are no packed graph.

        """
        if len(packed) < _HEADER.size:
            raise GraphError(f"{len(packed)} bytes are too few for a graph")
        version, kept, count, *tail = _HEADER.unpack_from(packed)
        codes = packed[_HEADER.size :]
        if version != _VERSION:
            raise GraphError(f"version {version} is not {_VERSION}")
        if not 1 <= kept <= MAX_STAGES or len(codes) != kept * len(_SCALE):
            raise GraphError(f"{len(codes)} bytes are not {kept} stages")
        if count < kept or (count > kept and kept < MAX_STAGES):
            raise GraphError(f"{count} stages can't be kept as {kept}")
        if not all(isfinite(value) and 0.0 <= value <= 2 * _LARGEST for value in tail):
            raise GraphError("its sums are no quantities")
        rows = zip(*[iter(codes)] * len(_SCALE), strict=True)
        stages = tuple(Stage(*(expm1(c / _STEPS) / s for c, s in zip(row, _SCALE, strict=True))) for row in rows)
        return cls(stages, count, (tail[0], tail[1], tail[2], tail[3]), packed)


def _code(value: float, scale: float) -> int:
    return min(round(log1p(_quantity(value) * scale) * _STEPS), 0xFF)


def _quantity(value: float) -> float:
    """What makes no sense, such as nan or less than nothing, counts as nothing."""
    return min(value, _LARGEST) if value > 0.0 else 0.0
