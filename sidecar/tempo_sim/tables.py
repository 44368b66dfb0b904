"""A sweep's figures as terminal tables: one for each load, number of replicas and scenario, a line for each policy."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Final

from rich import box
from rich.table import Table

from tempo_sim.aggregate import Estimate, against, over_seeds
from tempo_sim.rows import ALL, Row
from tempo_sim.scenarios import NONE

FIGURES: Final = (
    ("attainment", "attainment"),
    ("gain", "service_gain"),
    ("goodput gain", "goodput_gain"),
    ("goodput req/s", "goodput_requests_per_s"),
    ("tokens/s", "tokens_per_s"),
)
"""Heading and key."""


def distinct(rows: Sequence[Row], key: str) -> list[object]:
    """The values of a label, in order of appearance."""
    return list(dict.fromkeys(row[key] for row in rows))


def groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """(title, rows) of each load, number of replicas and scenario: they differ by policy, seed and class only."""
    loads = sorted(distinct(rows, "load"), key=lambda text: float(str(text)))
    for load, replicas, scenario in product(loads, distinct(rows, "replicas"), distinct(rows, "scenario")):
        labels = {"load": load, "replicas": replicas, "scenario": scenario}
        chosen = [row for row in rows if row.items() >= labels.items()]
        title = f"load {load}, {chosen[0]['rate_per_s']:.2f} units/s, replicas {replicas}"
        yield title if scenario == NONE else f"{title}, {scenario}", chosen


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """A table for each group."""
    headings = columns(rows)
    for title, chosen in groups(rows):
        table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
        table.add_column("policy", no_wrap=True)
        for heading in headings:
            table.add_column(heading, justify="right", no_wrap=True)
        for policy, cells in lines(chosen):
            table.add_row(policy, *cells)
        yield table


def columns(rows: Sequence[Row]) -> list[str]:
    """The headings over the cells of `lines`: figures of all classes together, then each class's attainment."""
    return [*(heading for heading, _ in FIGURES), *_classes(rows)]


def lines(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """(policy, cells) for each policy of one group; gains are multiples of the first policy's."""
    base = str(rows[0]["policy"])
    return [(policy, _cells(rows, policy, base)) for policy in map(str, distinct(rows, "policy"))]


def _classes(rows: Sequence[Row]) -> list[str]:
    return [str(name) for name in distinct(rows, "slo_class") if name != ALL]


def _cells(rows: Sequence[Row], policy: str, base: str) -> list[str]:
    figures = [_cell(rows, key, policy, base) for _, key in FIGURES]
    of_class = (over_seeds(rows, "attainment", policy=policy, slo_class=name) for name in _classes(rows))
    return [*figures, *(_shown("attainment", value) for value in of_class)]


def _cell(rows: Sequence[Row], key: str, policy: str, base: str) -> str:
    if key.endswith("_gain"):
        ratio = against(rows, key, policy, base, slo_class=ALL)
        return f"{ratio.mean:.2f}x{_margin(ratio.margin, '.2f')}" if ratio else "-"
    return _shown(key, over_seeds(rows, key, policy=policy, slo_class=ALL))


def _shown(key: str, value: Estimate | None) -> str:
    if value is None:
        return "-"
    if key == "attainment":
        return f"{100.0 * value.mean:.1f}%{_margin(100.0 * value.margin, '.1f')}"
    return f"{value.mean:,.1f}{_margin(value.margin, ',.1f')}"


def _margin(margin: float, form: str) -> str:
    return f" ±{margin:{form}}" if margin else ""
