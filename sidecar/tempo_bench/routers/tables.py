"""Rows as tables in a terminal."""

from collections.abc import Callable, Sequence
from typing import Final

from rich import box
from rich.table import Table

from tempo_bench.routers.cases import MEMORY, Case
from tempo_bench.routers.rows import Row, times_bare

_KEYS: Final = ("p50_ms", "p99_ms", "added_p50_ms", "requests_per_s", "cpu_ms_per_request")
_HEADINGS: Final = ("p50 ms", "p99 ms", "added p50 ms", "requests/s", "CPU ms/request")
_STREAM_KEYS: Final = ("ttft_p50_ms", "ttft_p99_ms", "added_p50_ms", "requests_per_s", "cpu_ms_per_request")
_STREAM_HEADINGS: Final = ("TTFT p50 ms", "TTFT p99 ms", "added TTFT p50 ms", "streams/s", "CPU ms/stream")


def tables(cases: Sequence[Case], rows: Sequence[Row]) -> list[Table]:
    """One for each case, cheapest first, and one for memory. Routers with errors come last."""
    return [*(_case_table(case, rows) for case in cases), _memory_table(rows)]


def _case_table(case: Case, rows: Sequence[Row]) -> Table:
    streams = bool(case.shape.chunks)
    headings, keys = (_STREAM_HEADINGS, _STREAM_KEYS) if streams else (_HEADINGS, _KEYS)
    table = _table(f"{case.name} x{case.concurrency}: {case.title}", (*headings, "x bare proxy", "RSS MB"))
    mine = [row for row in rows if (row["case"], row["concurrency"]) == (case.name, case.concurrency)]
    for row in _ordered(mine, lambda row: row["cpu_ms_per_request"]):
        cells = [_number(row[key]) for key in keys]
        _add(table, row, [*cells, _number(times_bare(row, mine)), _number(row["rss_mb"])])
    return table


def _memory_table(rows: Sequence[Row]) -> Table:
    table = _table("memory: before the first request, and after all of them", ("requests", "RSS MB before", "after"))
    for row in _ordered([row for row in rows if row["case"] == MEMORY], lambda row: row["rss_mb"]):
        _add(table, row, [f"{row['requests']:,}", _number(row["rss_before_mb"]), _number(row["rss_mb"])])
    return table


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("router", no_wrap=True)
    table.add_column("version", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("errors")
    return table


def _add(table: Table, row: Row, cells: Sequence[str]) -> None:
    errors = ", ".join(f"{count:,} x {what}" for what, count in row["errors"].items())
    table.add_row(row["router"], row["version"], *cells, errors, style=None if row["ranked"] else "red")


def _ordered(rows: Sequence[Row], cost: Callable[[Row], float | None]) -> list[Row]:
    return sorted(rows, key=lambda row: (not row["ranked"], cost(row) or 0.0))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
