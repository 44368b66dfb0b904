"""Comparison of policies as terminal tables: one for each load, the ratio to the first policy below each class."""

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.table import Table

from tempo_bench.summary import Row, Run, class_names, names, pooled

COLUMNS: Final = (
    ("requests", "requests"),
    ("attainment", "attainment"),
    ("gain", "service_gain"),
    ("TTFT p50", "ttft_p50_s"),
    ("p99", "ttft_p99_s"),
    ("TBT p50", "tbt_p50_s"),
    ("p99", "tbt_p99_s"),
    ("TTLT p50", "ttlt_p50_s"),
    ("p99", "ttlt_p99_s"),
)
"""Heading and key of each figure."""

ROW_NAMES: Final = {"engine": "fcfs", "engine-priority": "vllm-priority"}
"""What vLLM's own orders (`pool`) are called in the rows; the others keep their name."""

TITLES: Final = {"fcfs": "FCFS (vLLM)", "vllm-priority": "priority (vLLM)", "tempo": "Tempo"}


def title(policy: str) -> str:
    """A policy's name for a reader."""
    return TITLES.get(policy, policy)


def cell(key: str, value: float | None) -> str:
    """A figure as text; a dash where there is none."""
    if value is None:
        return "-"
    if key == "attainment":
        return f"{value:.1%}"
    if key.startswith("tbt"):
        return f"{1e3 * value:.0f} ms"
    return f"{value:.2f} s" if key.endswith("_s") else f"{value:,.0f}"


def ratio(ours: float | None, theirs: float | None) -> str:
    """How many times theirs ours is; a dash where that says nothing."""
    return f"{ours / theirs:.2f}x" if ours is not None and theirs else "-"


def rows(runs: Sequence[Run], load: str) -> list[tuple[str, str, list[str]]]:
    """(class, policy or ratio, cells) of one load, all seeds together; the first policy is what others are held to."""
    policies = names(runs, "policy")
    lines: list[tuple[str, str, list[str]]] = []
    for slo_class in class_names(runs):
        figures: dict[str, Row] = {policy: pooled(runs, load, policy, slo_class) for policy in policies}
        base = figures[policies[0]]
        lines += [(slo_class, title(p), [cell(key, figures[p][key]) for _, key in COLUMNS]) for p in policies]
        lines += [
            (
                slo_class,
                f"{title(p)} / {title(policies[0])}",
                ["" if key == "requests" else ratio(figures[p][key], base[key]) for _, key in COLUMNS],
            )
            for p in policies[1:]
        ]
    return lines


def comparison(runs: Sequence[Run], load: str) -> Table:
    """The table of one load."""
    rate = next(run.rate_per_s for run in runs if run.load == load)
    seeds = ", ".join(str(seed) for seed in names(runs, "seed"))
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{load}: {rate:.2f} units/s, seed {seeds}", title_justify="left", pad_edge=False
    )
    table.add_column("class")
    table.add_column("policy", no_wrap=True)
    for heading, _ in COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    last = ""
    for slo_class, policy, cells in rows(runs, load):
        if last and slo_class != last:
            table.add_section()
        table.add_row(slo_class if slo_class != last else "", policy, *cells)
        last = slo_class
    return table
