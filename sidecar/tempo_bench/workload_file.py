"""A workload from a file in the format `tempo-workload` (docs/workloads.md), as requests of forced answer lengths.

Prompts are token ids: block for block where the file names shared prefixes, so that equal ids are equal tokens, and
random beyond. `FORCED` tells the engine's sampler how long an answer is (`tempo_vllm.forced_lengths`); everybody else
sees `max_tokens`, which is the file's cap.
"""

import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

from tempo_core.slo import Pattern, SLOClass

FORCED: Final = "forced_output_tokens"
"""The extra argument of a request that holds its answer's length."""

_TOKENS: Final = range(32, 256)
"""Ordinary tokens (bytes, mostly) of about every vocabulary."""
_Count = Annotated[int, msgspec.Meta(ge=1, le=99_999_999)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    format: Literal["tempo-workload"]
    version: Literal[1]
    block_tokens: _Count = 16


class _Call(msgspec.Struct, forbid_unknown_fields=True):
    prompt_tokens: _Count
    output_tokens: _Count
    max_tokens: _Count
    delay_s: _Seconds = 0.0
    prefix: str = ""


class _Unit(msgspec.Struct, forbid_unknown_fields=True, rename={"slo_class": "class"}):
    id: str
    slo_class: str
    at_s: _Seconds
    stages: Annotated[list[Annotated[list[_Call], msgspec.Meta(min_length=1)]], msgspec.Meta(min_length=1)]
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class ReplayCall:
    """One request, with the answer that it will get."""

    prompt: tuple[int, ...]
    output_tokens: int
    max_tokens: int
    delay_s: float
    path: ClassVar = "completions"

    def fields(self, earlier: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002  # see `AnyCall`
        """See `AnyCall`."""
        forced = {FORCED: self.output_tokens}
        return {"prompt": self.prompt, "max_tokens": self.max_tokens, "temperature": 0, "vllm_xargs": forced}

    def complaint(self, prompt_tokens: int, output_tokens: int) -> str | None:
        """See `AnyCall`: both lengths have to be the file's."""
        if (prompt_tokens, output_tokens) == (len(self.prompt), self.output_tokens):
            return None
        wanted = f"{len(self.prompt)} and {self.output_tokens}"
        return f"{prompt_tokens} tokens in and {output_tokens} out, not {wanted}: are the engine's lengths forced?"


@dataclass(frozen=True, slots=True)
class ReplayUnit:
    """One unit; all answers are streamed, so that there is a time for each token."""

    id: str
    kind: str
    at_s: float
    stages: tuple[tuple[ReplayCall, ...], ...]
    program: bool
    streams: ClassVar = True


@dataclass(frozen=True, slots=True)
class FileWorkload:
    """A file's units, in order of arrival."""

    units: tuple[ReplayUnit, ...]

    @property
    def rate_per_s(self) -> float:
        """Units a second, up to the last arrival."""
        return len(self.units) / max(self.units[-1].at_s, 1e-9)

    @property
    def fingerprint(self) -> str:
        """A short hash of everything in it."""
        return sha256(repr(self.units).encode()).hexdigest()[:16]


def read_workload(path: Path, classes: Mapping[str, SLOClass], salt: str) -> FileWorkload:
    """The file's units as requests; `salt` makes prompts differ from those of other files, whatever their ids.

    Raises:
        ValueError: naming file, line and field.

    """
    units: list[ReplayUnit] = []
    line = 0
    try:
        lines = _lines(path)
        line, text = next(lines, (1, b""))
        header = msgspec.json.decode(text, type=_Header)
        decode = msgspec.json.Decoder(_Unit).decode
        tokens = partial(_prompt, block_tokens=header.block_tokens, salt=salt)
        for line, text in lines:  # noqa: B007  # the error below says which
            units.append(_unit(decode(text), classes, tokens))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: line {line}: {error}" if line else str(error)) from None
    if not units:
        raise ValueError(f"{path} has no units")
    return FileWorkload(tuple(sorted(units, key=lambda unit: unit.at_s)))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def _unit(read: _Unit, classes: Mapping[str, SLOClass], tokens: partial[tuple[int, ...]]) -> ReplayUnit:
    slo = classes.get(read.slo_class)
    if slo is None:
        raise ValueError(f"class: {read.slo_class!r} is no class of the pool; it has {', '.join(classes)}")
    program = slo.pattern is Pattern.COLLECTIVE
    if not program and sum(map(len, read.stages)) > 1:
        raise ValueError(f"stages: more than one call takes a Collective class; {slo.name!r} is {slo.pattern.value}")
    # A unit arrives with its first call.
    early_s = min(call.delay_s for call in read.stages[0])
    stages = [
        tuple(
            _call(call, call.delay_s - (0.0 if stage else early_s), tokens(call, f"{read.id} {stage} {index}"))
            for index, call in enumerate(calls)
        )
        for stage, calls in enumerate(read.stages)
    ]
    return ReplayUnit(read.id, read.slo_class, read.at_s + early_s, tuple(stages), program)


def _call(read: _Call, delay_s: float, prompt: tuple[int, ...]) -> ReplayCall:
    if read.output_tokens > read.max_tokens:
        raise ValueError(f"max_tokens: is {read.max_tokens}, below the output_tokens of {read.output_tokens}")
    return ReplayCall(prompt, read.output_tokens, read.max_tokens, delay_s)


def _prompt(call: _Call, name: str, *, block_tokens: int, salt: str) -> tuple[int, ...]:
    """A block's tokens follow from its id, the rest from the call's name."""
    spans = [_span(part) for part in call.prefix.split()]
    shared = block_tokens * sum(map(len, spans))
    if shared > call.prompt_tokens:
        raise ValueError(f"prefix: its blocks have {shared} tokens, more than the prompt's {call.prompt_tokens}")
    blocks = (_drawn(f"{salt} block {block}", block_tokens) for span in spans for block in span)
    tail = _drawn(f"{salt} call {name}", call.prompt_tokens - shared)
    return tuple(token for tokens in (*blocks, tail) for token in tokens)


def _span(part: str) -> range:
    first, _, last = part.partition("-")
    if first.isdecimal() and (last or first).isdecimal() and (span := range(int(first), int(last or first) + 1)):
        return span
    raise ValueError(f"prefix: {part[:40]!r} is neither a block's number nor a range such as 1-1523")


def _drawn(seed: str, count: int) -> Iterable[int]:
    return Random(seed).choices(_TOKENS, k=count)  # noqa: S311  # reproducible on purpose
