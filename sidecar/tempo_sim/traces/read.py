"""Reading a trace, whatever its format."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Final

import msgspec

from tempo_core.slo import SLOClass
from tempo_sim.paper_workload import paper_classes
from tempo_sim.traces.draft import Draft, Options
from tempo_sim.traces.errors import TraceError
from tempo_sim.traces.own import NAME, read_own
from tempo_sim.traces.rules import Rule, by_pattern
from tempo_sim.traces.sessions import read_agent_calls, read_coding_sessions
from tempo_sim.traces.single_calls import read_azure, read_mooncake
from tempo_sim.traces.text import Lines, open_lines
from tempo_sim.workload import SimUnit

MAX_UNITS: Final = 1_000_000
"""So many, at a few hundred bytes each, still fit into memory."""


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file: what tells it from the others, and its reader."""

    fields: frozenset[str]
    """The header of a CSV file, or the first line's object, has these."""
    read: Callable[[Lines, Options], Iterator[Draft]]


_CODING_FIELDS: Final = frozenset(
    (
        "trace", "agent", "parent_agent", "t_s", "input_tokens", "output_tokens", "api_time_s", "think_time_s", "stop",
        "hash_block_ranges64",
    )
)  # fmt: skip

FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        NAME: Format(frozenset({"format", "version"}), read_own),
        "azure": Format(frozenset({"TIMESTAMP", "ContextTokens", "GeneratedTokens"}), read_azure),
        "mooncake": Format(frozenset({"timestamp", "input_length", "output_length"}), read_mooncake),
        "coding-sessions": Format(_CODING_FIELDS, read_coding_sessions),
        "agent-calls": Format(frozenset({"kind", "session", "t_s", "input_chars", "output_chars"}), read_agent_calls),
    }
)
"""Every format that `read_trace` knows, by name."""


def read_trace(
    path: Path,
    *,
    format: str | None = None,  # noqa: A002  # what it is
    classes: Mapping[str, SLOClass] | None = None,
    rule: Rule | None = None,
    options: Options | None = None,
    start_s: float = 0.0,
    seconds: float = inf,
) -> list[SimUnit]:
    """The units of a trace, in order of arrival.

    Files are read as a stream, so that of a big one a window can be had. (Sessions are read whole, but their calls are
    made only within the window.)

    Args:
        path: a plain or gzip file.
        format: one of `FORMATS`; None: recognised by its first line.
        classes: SLO classes that units may have; None: the paper's.
        rule: gives a class to each unit that the trace gives none; None: `by_pattern`.
        options: how the trace is taken.
        start_s: the window's start in the trace's time; arrivals count from it.
        seconds: the window's length.

    Raises:
        TraceError: naming file, line and field.

    """
    options = options or Options()
    classes = paper_classes() if classes is None else classes
    name = format or _recognise(path)
    if name not in FORMATS:
        raise TraceError(path, f"{name!r} is not a format; there are {', '.join(FORMATS)}")
    with open_lines(path) as lines:
        drafts = _in_order(path, FORMATS[name].read(lines, options), options.longest_tokens)
        units = _classified(path, drafts, classes, rule or by_pattern(classes), options.seed)
        found = list(_checked(path, cut(units, start_s, seconds)))
    if not found:
        raise TraceError(path, "has no unit in this window; is it empty, or too late a start?")
    return found


def cut(units: Iterable[SimUnit], start_s: float = 0.0, seconds: float = inf) -> Iterator[SimUnit]:
    """The units that arrive in a window, their arrivals counted from its start; `units` come in order of arrival."""
    for unit in units:
        if unit.at_s >= start_s + seconds:
            return
        if unit.at_s >= start_s:
            yield replace(unit, at_s=unit.at_s - start_s)


def at_rate(units: Sequence[SimUnit], rate_per_s: float) -> list[SimUnit]:
    """The same units, arriving faster or slower, `rate_per_s` of them a second on average. Delays stay.

    Raises:
        ValueError: where all arrive at once, or the rate is not above 0.

    """
    span_s = units[-1].at_s if units else 0.0
    if not (span_s > 0.0 and rate_per_s > 0.0):
        raise ValueError("a rate needs to be above 0, and units that do not all arrive at once")
    stretch = len(units) / span_s / rate_per_s
    return [replace(unit, at_s=unit.at_s * stretch) for unit in units]


def _recognise(path: Path) -> str:
    with open_lines(path) as lines:
        first = next(iter(lines), "")
        fields = _fields(first)
        for name, known in FORMATS.items():
            if known.fields <= fields:
                return name
        has = f"its first line has {', '.join(sorted(fields)[:12])}" if fields else "its first line has no fields"
        raise lines.error(f"is not a format that is known ({', '.join(FORMATS)}); {has}")


def _fields(line: str) -> frozenset[str]:
    try:
        if line.startswith("{"):
            return frozenset(msgspec.json.decode(line, type=dict[str, msgspec.Raw]))
        return frozenset(next(csv.reader([line]), []))
    except (msgspec.DecodeError, csv.Error, RecursionError):
        return frozenset()


def _in_order(path: Path, drafts: Iterable[Draft], longest_tokens: float) -> Iterator[Draft]:
    last_s = 0.0
    for draft in drafts:
        if draft.at_s < last_s:
            raise TraceError(path, "arrives before the line above it; sort the file by time", line=draft.line)
        if draft.longest_tokens > longest_tokens:
            problem = f"has a call of {draft.longest_tokens} tokens where {longest_tokens:g} fit; shorten all prompts"
            raise TraceError(path, f"{problem} (--prompt-scale, Options.prompt_scale)", line=draft.line)
        last_s = draft.at_s
        yield draft


def _classified(
    path: Path, drafts: Iterable[Draft], classes: Mapping[str, SLOClass], rule: Rule, seed: int
) -> Iterator[SimUnit]:
    random = Random(f"{seed} classes")  # noqa: S311  # reproducible on purpose
    for number, draft in enumerate(drafts):
        try:
            name = draft.slo_class or rule(draft, random)
        except ValueError as error:
            raise TraceError(path, str(error), line=draft.line) from None
        if name not in classes:
            problem = f"{name!r} is not one of the classes {', '.join(classes)}"
            raise TraceError(path, problem, line=draft.line, field="class")
        yield SimUnit(draft.id or f"{path.name}:{number}", name, draft.at_s, draft.stages, draft.tenant)


def _checked(path: Path, units: Iterable[SimUnit]) -> Iterator[SimUnit]:
    ids: set[str] = set()
    for unit in units:
        if len(ids) == MAX_UNITS:
            raise TraceError(path, f"has more than {MAX_UNITS} units in this window; take a shorter one")
        if unit.id in ids:
            raise TraceError(path, f"{unit.id!r} is the id of two units; give each its own, or none", field="id")
        ids.add(unit.id)
        yield unit
