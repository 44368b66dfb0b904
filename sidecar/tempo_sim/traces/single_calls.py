"""Traces of single requests, in order of arrival: Azure's CSV and Mooncake's JSONL."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Final

import msgspec

from tempo_sim.traces.blocks import MAX_ID, reblock
from tempo_sim.traces.draft import Draft, Options
from tempo_sim.traces.json_lines import decoded
from tempo_sim.traces.text import MAX_LENGTH, Lines, Row, csv_rows

MOONCAKE_BLOCK_TOKENS: Final = 512


def read_azure(lines: Lines, options: Options) -> Iterator[Draft]:
    """Azure's LLM inference traces: TIMESTAMP, ContextTokens, GeneratedTokens. Time starts with the first row."""
    start: datetime | None = None
    for row in csv_rows(lines):
        time = _time(row)
        start = start or time
        try:
            at_s = (time - start).total_seconds()
        except TypeError:
            raise row.error(
                "TIMESTAMP", "has a time zone where the first row has none, or the other way round"
            ) from None
        call = options.call(row.whole("ContextTokens"), row.whole("GeneratedTokens"))
        yield Draft(row.line, at_s, ((call,),), row.cells)


def _time(row: Row) -> datetime:
    text = row.text("TIMESTAMP")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise row.error("TIMESTAMP", f"{text!r} is not a time such as 2023-11-16 18:15:46.680590") from None


class _MooncakeRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    timestamp: Annotated[float, msgspec.Meta(ge=0)]
    """Milliseconds since the trace's start."""
    input_length: Annotated[int, msgspec.Meta(ge=0, le=MAX_LENGTH)]
    output_length: Annotated[int, msgspec.Meta(ge=0, le=MAX_LENGTH)]
    hash_ids: list[Annotated[int, msgspec.Meta(ge=0, lt=MAX_ID)]] = []


def read_mooncake(lines: Lines, options: Options) -> Iterator[Draft]:
    """Mooncake's traces: timestamp in ms, input_length, output_length, hash_ids of blocks of 512 tokens."""
    known: dict[int, int] = {}
    for row in decoded(lines, _MooncakeRow):
        call = options.call(row.input_length, row.output_length)
        prefix = reblock(
            row.hash_ids,
            trace_tokens=MOONCAKE_BLOCK_TOKENS * options.prompt_scale,
            engine_tokens=options.block_tokens,
            prompt_tokens=call.prompt_tokens,
            known=known,
        )
        yield Draft(lines.line, row.timestamp / 1e3, ((replace(call, prefix=prefix),),))
