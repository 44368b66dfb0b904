"""Rows of `summary.json`: for each router and case, the median of its turns."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson

from tempo_bench.routers.cases import MEMORY, Case
from tempo_bench.routers.contenders import BARE, DIRECT
from tempo_bench.routers.measure import Entrant, Memory, Record, Records

Row = dict[str, Any]

_DIGITS: Final = 4


def summarise(entrants: Sequence[Entrant], records: Records, memories: Mapping[str, Memory]) -> list[Row]:
    """A row for each router at each case, then one for each router's memory.

    `added_p50_ms` is what the router adds to the backend's own median: of TTFT for a stream, else of the whole answer.
    A row with errors is not `ranked`.
    """
    by_name = {entrant.name: entrant for entrant in entrants}
    rows = [_case_row(by_name[name], case, record) for (name, case), record in records.items()]
    direct = {_case(row): _first_ms(row) for row in rows if row["router"] == DIRECT}
    for row in rows:
        row["added_p50_ms"] = _difference(_first_ms(row), direct.get(_case(row)))
    return rows + [_memory_row(entrant, memories[entrant.name]) for entrant in entrants if entrant.name in memories]


def times_bare(row: Row, rows: Sequence[Row]) -> float | None:
    """How many times the CPU of the bare pass-through a row's requests took; None where either is unknown."""
    bare = next(
        (other["cpu_ms_per_request"] for other in rows if other["router"] == BARE and _case(other) == _case(row)),
        None,
    )
    cpu_ms = row["cpu_ms_per_request"]
    return cpu_ms / bare if bare and cpu_ms is not None else None


def write_json(path: Path, value: Any) -> None:
    """Write a file that people can read too."""
    path.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")


def _case_row(entrant: Entrant, case: Case, record: Record) -> Row:
    def middle(name: str) -> float | None:
        known = [value for sample in record.samples if (value := getattr(sample, name)) is not None]
        return round(median(known), _DIGITS) if known else None

    streams = bool(case.shape.chunks)
    return {
        "router": entrant.name,
        "version": entrant.version,
        "case": case.name,
        "concurrency": case.concurrency,
        "p50_ms": middle("p50_ms"),
        "p99_ms": middle("p99_ms"),
        "ttft_p50_ms": middle("first_p50_ms") if streams else None,
        "ttft_p99_ms": middle("first_p99_ms") if streams else None,
        "requests_per_s": middle("requests_per_s"),
        "cpu_ms_per_request": middle("cpu_ms"),
        "rss_mb": middle("rss_mb"),
        "requests": record.requests,
        "errors": dict(record.errors),
        "ranked": record.requests > 0 and not record.errors,
    }


def _memory_row(entrant: Entrant, memory: Memory) -> Row:
    return {
        "router": entrant.name,
        "version": entrant.version,
        "case": MEMORY,
        "concurrency": 16,
        "p50_ms": None,
        "p99_ms": None,
        "requests_per_s": None,
        "cpu_ms_per_request": None,
        "rss_mb": None if memory.after_mb is None else round(memory.after_mb, 1),
        "rss_before_mb": round(memory.before_mb, 1),
        "requests": memory.requests,
        "errors": dict(memory.errors),
        "ranked": not memory.errors,
    }


def _case(row: Row) -> tuple[str, int]:
    return row["case"], row["concurrency"]


def _first_ms(row: Row) -> float | None:
    """Median time to what a client waits for first."""
    found: float | None = row["ttft_p50_ms"] or row["p50_ms"]
    return found


def _difference(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else round(value - base, _DIGITS)
