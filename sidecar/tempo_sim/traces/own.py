"""Our own format: a line that names it and its version, then a unit a line. See docs/workloads.md."""

import gzip
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from tempo_sim.traces.blocks import format_ranges, parse_ranges, reblock
from tempo_sim.traces.draft import Draft, Options
from tempo_sim.traces.json_lines import decode, decoded
from tempo_sim.traces.text import MAX_LENGTH, Lines
from tempo_sim.workload import BLOCK_TOKENS, SimCall, SimUnit

NAME: Final = "tempo-workload"
VERSION: Final = 1

Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_LENGTH)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class _Header(_Strict, frozen=True, omit_defaults=False):
    format: Literal["tempo-workload"]
    version: int
    block_tokens: Count = BLOCK_TOKENS


class _Call(_Strict, frozen=True):
    prompt_tokens: Count
    output_tokens: Count
    max_tokens: Count | None = None
    delay_s: Seconds = 0.0
    prefix: str = ""
    """Ids of the prompt's leading full blocks, as ranges."""


class _Unit(_Strict, frozen=True, rename={"slo_class": "class"}):
    at_s: Seconds
    stages: Annotated[list[Annotated[list[_Call], msgspec.Meta(min_length=1)]], msgspec.Meta(min_length=1)]
    id: str = ""
    slo_class: str | None = None
    tenant: str = ""


def read_own(lines: Lines, options: Options) -> Iterator[Draft]:
    """Our own format, version 1."""
    header = decode(lines, next(iter(lines), ""), msgspec.json.Decoder(_Header))
    if header.version != VERSION:
        raise lines.error(f"is {header.version}; this reader knows version {VERSION}", "version")
    reblocked = partial(
        reblock,
        trace_tokens=header.block_tokens * options.prompt_scale,
        engine_tokens=options.block_tokens,
        known={},
    )
    for unit in decoded(lines, _Unit):
        stages = tuple(tuple(_sim_call(lines, call, options, reblocked) for call in stage) for stage in unit.stages)
        labels = {"tenant": unit.tenant}
        yield Draft(lines.line, unit.at_s, stages, labels, unit.id, unit.slo_class, unit.tenant)


def _sim_call(lines: Lines, call: _Call, options: Options, reblocked: Callable[..., tuple[int, ...]]) -> SimCall:
    plain = options.call(call.prompt_tokens, call.output_tokens, call.delay_s)
    cap = call.max_tokens or plain.max_tokens
    if call.output_tokens > cap:
        raise lines.error(f"is {cap}, below the output_tokens of {call.output_tokens}", "max_tokens")
    try:
        prefix = reblocked(parse_ranges(call.prefix), prompt_tokens=plain.prompt_tokens)
    except ValueError as error:
        raise lines.error(str(error), "prefix") from None
    return replace(plain, max_tokens=cap, prefix=prefix)


def write_trace(path: Path, units: Iterable[SimUnit], *, block_tokens: int = BLOCK_TOKENS) -> None:
    """Write units in our own format; gzip where the name ends in .gz. `read_trace` gives them back as they are."""
    encode = msgspec.json.encode
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
        file.write(encode(_Header(NAME, VERSION, block_tokens)) + b"\n")
        for unit in units:
            stages = [[_written(call) for call in stage] for stage in unit.stages]
            file.write(encode(_Unit(unit.at_s, stages, unit.id, unit.slo_class, unit.tenant)) + b"\n")


def _written(call: SimCall) -> _Call:
    prefix = format_ranges(call.prefix)
    return _Call(call.prompt_tokens, call.output_tokens, call.max_tokens, call.delay_s, prefix)
