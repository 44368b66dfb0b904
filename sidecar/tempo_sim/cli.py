"""`tempo simulate`: the command line."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Final

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tempo_api.manifest import ManifestError, load_pool
from tempo_core.slo import SLOClass
from tempo_core.snapshot import Settings
from tempo_sim.paper_workload import PaperSpec, paper_classes, paper_workload
from tempo_sim.profiles import PROFILES
from tempo_sim.rows import Row
from tempo_sim.sweep import NAMES, Sweep, capacity, run
from tempo_sim.tables import tables
from tempo_sim.traces import TraceError, at_rate, cut, read_trace
from tempo_sim.workload import SimUnit

PAPER: Final = "paper"

_POSITIVE = click.FloatRange(min=0.0, min_open=True)
_PATH = click.Path(path_type=Path)
_EPILOG: Final = """\b
Examples:
  tempo simulate                                        # the paper's mix: Sarathi-Serve's order against Tempo's
  tempo simulate --policy all --loads 0.8,1.0,1.5       # against every baseline
  tempo simulate -f pool.yaml --workload trace.csv --rate 4 --replicas 1..8
                                                        # how many GPUs do these SLOs need?
"""


def _floats(_: click.Context, __: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 0.5,1.5") from error


def _integers(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        first, dots, last = text.partition("..")
        return tuple(range(int(first), int(last) + 1)) if dots else tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list of integers such as 1,2,4 or 1..8") from error


def _policies(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    if text == "all":
        return NAMES
    names = tuple(word.strip() for word in text.split(","))
    if unknown := [name for name in names if name not in NAMES]:
        raise click.BadParameter(f"{unknown[0]!r} is not a policy; there are {', '.join(NAMES)}, and all")
    return names


@click.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("-f", "--manifest", type=_PATH, metavar="FILE", help="Pool and classes.  [default: the paper's SLOs]")
@click.option("--workload", default=PAPER, metavar="FILE", help="A trace (see docs/workloads.md), or the paper's mix.")
@click.option(
    "--profile", type=click.Choice(list(PROFILES)), default="llama-3.1-8b-h100", help="Each replica's engine."
)
@click.option("--places", type=click.IntRange(min=1), help="Requests that run together.  [default: the profile's]")
@click.option("--policy", "policies", callback=_policies, default="sarathi,tempo", help="A list, or all.")
@click.option("--loads", callback=_floats, default="0.5,1.0,1.5", help="Multiples of capacity.")
@click.option("--rate", type=_POSITIVE, help="Units/s that are load 1.  [default: measured capacity]")
@click.option("--seconds", type=_POSITIVE, default=300.0, help="How long units arrive; all are followed to their end.")
@click.option("--seeds", callback=_integers, default="1,2,3", help="Each case is run once for each.")
@click.option("--replicas", callback=_integers, default="1", help="1..8 answers how many these SLOs need.")
@click.option("--hard", is_flag=True, help="Gain that is late is worth nothing, whatever the classes say.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: one a core]")
@click.option("--json", "json_file", type=_PATH, metavar="FILE", help="Write the rows here.")
@click.option("--out", type=_PATH, default=Path("build/simulate"), metavar="FOLDER", help="Where the report goes.")
def simulate(
    manifest: Path | None, workload: str, profile: str, places: int | None, *, hard: bool, **options: Any
) -> None:
    """What policies would earn, without a GPU: the scheduler that ships, on a simulated engine."""
    engine = PROFILES[profile] if places is None else replace(PROFILES[profile], max_places=places)
    try:
        classes, settings = _declared(manifest, hard=hard)
        source, label = _source(workload, classes)
        _report(Sweep(source, label, classes, engine, settings=settings, **_sweep_options(options)), options)
    except (ManifestError, TraceError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _sweep_options(options: Mapping[str, Any]) -> dict[str, Any]:
    names = ("policies", "loads", "seconds", "seeds", "replicas")
    return {name: options[name] for name in names} | {"rate_per_s": options["rate"]}


def _declared(manifest: Path | None, *, hard: bool) -> tuple[Mapping[str, SLOClass], Settings]:
    pool = None if manifest is None else load_pool(manifest)
    classes = paper_classes() if pool is None else pool.classes
    if hard:
        classes = {name: replace(slo, gain=replace(slo.gain, decay=inf)) for name, slo in classes.items()}
    return classes, Settings() if pool is None else pool.settings


def _source(
    workload: str, classes: Mapping[str, SLOClass]
) -> tuple[Callable[[float, float, int], Sequence[SimUnit]], str]:
    """Where units come from, as `Sweep.workload` needs it, and what it is called."""
    if workload == PAPER:
        return _paper, PAPER
    path = Path(workload)
    return partial(_trace, tuple(read_trace(path, classes=classes))), path.name


def _paper(rate_per_s: float, seconds: float, seed: int) -> Sequence[SimUnit]:
    return paper_workload(PaperSpec(rate_per_s, seconds, seed))


def _trace(units: Sequence[SimUnit], rate_per_s: float, seconds: float, seed: int) -> Sequence[SimUnit]:
    """A trace's units at a rate, from a place in it that the seed chooses."""
    faster = at_rate(units, rate_per_s)
    room_s = max(faster[-1].at_s - seconds, 0.0)
    return list(cut(faster, room_s * (0.6180339887 * seed % 1.0), seconds))


def _report(sweep: Sweep, options: Mapping[str, Any]) -> None:
    from tempo_sim.report import render  # noqa: PLC0415  # matplotlib takes a second

    console = Console() if Console().is_terminal else Console(width=150)
    if sweep.rate_per_s is None:
        console.print(f"Measuring capacity of {sweep.profile.name}...")
    capacity_per_s = capacity(sweep)
    each = " a replica" if sweep.rate_per_s is None else ""
    console.print(f"Load 1 is {capacity_per_s:.3f} units/s{each}; {len(sweep.cases)} runs.")
    rows = _all(sweep, capacity_per_s, options["jobs"], console)
    for table in tables(rows):
        console.print(table)
    out: Path = options["out"]
    out.mkdir(parents=True, exist_ok=True)
    for file in filter(None, (out / "summary.json", options["json_file"])):
        file.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")
    (out / "report.html").write_text(render(rows, sweep, capacity_per_s), encoding="utf-8")
    console.print(f"Report: {out / 'report.html'}   figures: {out / 'summary.json'}", soft_wrap=True)


def _all(sweep: Sweep, capacity_per_s: float, jobs: int | None, console: Console) -> list[Row]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    found: list[Row] = []
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("simulating", total=len(sweep.cases))
        for rows in run(sweep, capacity_per_s, jobs):
            found += rows
            progress.advance(task)
    at = {name: place for place, name in enumerate(sweep.policies)}
    return sorted(found, key=lambda row: (float(row["load"]), row["replicas"], at[row["policy"]], row["seed"]))
