"""`tempo simulate --against`: what it prints and writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson
from rich import box
from rich.console import Console
from rich.table import Table

from tempo_api.manifest import Pool
from tempo_sim.against import COMPARED, compare, pairs
from tempo_sim.profiles import EngineProfile
from tempo_sim.rows import Row

_HEADINGS: Final = ("attainment", "TTFT p50", "p99", "TBT p50", "p99", "TTLT p50", "p99", "tokens/s")


def run_against(folder: Path, pool: Pool, sizes: EngineProfile, console: Console) -> None:
    """Simulate every run of `folder`, print each policy's figures and their errors, write `against.json` into it.

    Raises:
        ValueError: see `tempo_sim.against.pairs`.

    """
    rows = compare(list(pairs(folder, pool, sizes)))
    console.print(table(rows))
    for row in rows:
        if row["failed"] and row["slo_class"] == "all" and row["seed"] is not None:
            console.print(f"{row['policy']}, seed {row['seed']}: {row['failed']} units failed and are left out")
    (folder / "against.json").write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")
    console.print(f"Figures: {folder / 'against.json'}", soft_wrap=True)


def table(rows: Sequence[Row]) -> Table:
    """Three lines for each policy and class, its seeds pooled: real, simulated, and the error."""
    made = Table(box=box.SIMPLE_HEAD, title="the simulator against a real run", title_justify="left", pad_edge=False)
    for heading in ("policy", "class", ""):
        made.add_column(heading, no_wrap=True)
    for heading in _HEADINGS:
        made.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        if row["seed"] is None:
            made.add_section()
            for which in ("real", "simulated", "error"):
                labels = (row["policy"], row["slo_class"]) if which == "real" else ("", "")
                made.add_row(*labels, which, *(_cell(key, row[which][key], which) for key in COMPARED))
    return made


def _cell(key: str, value: float | None, which: str) -> str:
    if value is None:
        return "-"
    if which == "error":
        return f"{100 * value:+.1f} pt" if key == "attainment" else f"{value:+.0%}"
    if key == "attainment":
        return f"{value:.1%}"
    if key.startswith("tbt"):
        return f"{1e3 * value:.0f} ms"
    return f"{value:.2f} s" if key.endswith("_s") and key != "tokens_per_s" else f"{value:.0f}"
