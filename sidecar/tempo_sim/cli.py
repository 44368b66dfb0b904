"""`tempo simulate`: the command line."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
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
from tempo_sim.against_report import run_against
from tempo_sim.arrivals import TraceGaps
from tempo_sim.contenders import CONTENDERS, GROUPS
from tempo_sim.export import fitted, write
from tempo_sim.paper_workload import paper_classes
from tempo_sim.profiles import PROFILES, EngineProfile
from tempo_sim.routers import DIRECT, ROUTERS
from tempo_sim.rows import Row
from tempo_sim.scenarios import NONE, SCENARIOS
from tempo_sim.sources import Source, paper, trace
from tempo_sim.sweep import Sweep, capacity, run
from tempo_sim.tables import tables
from tempo_sim.timeline import Timeline
from tempo_sim.traces import Options, TraceError, read_trace

PAPER: Final = "paper"
POISSON: Final = "poisson"

_POSITIVE = click.FloatRange(min=0.0, min_open=True)
_PATH = click.Path(path_type=Path)
_EPILOG: Final = """\b
Examples:
  tempo simulate                                        # the paper's mix: Sarathi-Serve's order against Tempo's
  tempo simulate --policy all --loads 0.8,1.0,1.5       # against every baseline
  tempo simulate --policy ablation --loads 1.5          # what each part of Tempo is worth
  tempo simulate --loads 1.2 --scenario all             # with wrong lengths, other SLOs, bursts, an adversary
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
    return GROUPS.get(text) or _known("policy", CONTENDERS, text, GROUPS)


def _scenarios(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(SCENARIOS) if text == "all" else _known("scenario", SCENARIOS, text, ("all",))


def _routers(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(ROUTERS) if text == "all" else _known("router", ROUTERS, text, ("all",))


def _known(what: str, names: Iterable[str], text: str, groups: Iterable[str]) -> tuple[str, ...]:
    chosen = tuple(word.strip() for word in text.split(","))
    if unknown := [name for name in chosen if name not in names]:
        raise click.BadParameter(f"{unknown[0]!r} is not a {what}; there are {', '.join((*names, *groups))}")
    return chosen


@click.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("-f", "--manifest", type=_PATH, metavar="FILE", help="Pool and classes.  [default: the paper's SLOs]")
@click.option("--workload", default=PAPER, metavar="FILE", help="A trace (see docs/workloads.md), or the paper's mix.")
@click.option("--prompt-scale", type=_POSITIVE, default=1.0, help="A trace's prompts are this many times as long.")
@click.option("--scale", type=_POSITIVE, default=1.0, help="All lengths are this many times as long, caps too.")
@click.option("--longest", type=click.IntRange(min=2), metavar="TOKENS", help="Cut calls, caps included, to this.")
@click.option("--idle", type=_POSITIVE, default=300.0, help="Seconds of rest that end a session's program.")
@click.option("--arrivals", default=POISSON, metavar="FILE", help="The paper's mix arrives as this trace did, or so.")
@click.option(
    "--profile", type=click.Choice(list(PROFILES)), default="llama-3.1-8b-h100", help="Each replica's engine."
)
@click.option("--places", type=click.IntRange(min=1), help="Requests that run together.  [default: the profile's]")
@click.option("--policy", "policies", callback=_policies, default="sarathi,tempo", help="A list, all, or ablation.")
@click.option("--loads", callback=_floats, default="0.5,1.0,1.5", help="Multiples of capacity.")
@click.option("--rate", type=_POSITIVE, help="Units/s that are load 1.  [default: measured capacity]")
@click.option("--seconds", type=_POSITIVE, default=300.0, help="How long units arrive; all are followed to their end.")
@click.option("--seeds", callback=_integers, default="1,2,3", help="Each case is run once for each.")
@click.option("--replicas", callback=_integers, default="1", help="1..8 answers how many these SLOs need.")
@click.option("--router", "routers", callback=_routers, default=DIRECT, help=f"Of {', '.join(ROUTERS)}; or all.")
@click.option("--scenario", "scenarios", callback=_scenarios, default=NONE, help=f"Of {', '.join(SCENARIOS)}; or all.")
@click.option("--hard", is_flag=True, help="Gain that is late is worth nothing, whatever the classes say.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: one a core]")
@click.option("--json", "json_file", type=_PATH, metavar="FILE", help="Write the rows here.")
@click.option("--out", type=_PATH, default=Path("build/simulate"), metavar="FOLDER", help="Where the report goes.")
@click.option(
    "--write", "workloads", type=_PATH, metavar="FOLDER", help="Only write the workloads, a file for each run."
)
@click.option("--against", type=_PATH, metavar="FOLDER", help="Only simulate what tempo bench replay ran, and compare.")
def simulate(manifest: Path | None, profile: str, places: int | None, *, hard: bool, **options: Any) -> None:
    """What policies would earn, without a GPU: the scheduler that ships, on a simulated engine."""
    engine = PROFILES[profile] if places is None else replace(PROFILES[profile], max_places=places)
    try:
        if options["against"]:
            _against(options["against"], manifest, engine)
            return
        classes, settings = _declared(manifest, hard=hard)
        source, label = _source(options, classes, engine)
        source = fitted(source, options["scale"], options["longest"])
        _report(Sweep(source, label, classes, engine, settings=settings, **_sweep_options(options)), options)
    except (ManifestError, TraceError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _against(folder: Path, manifest: Path | None, engine: EngineProfile) -> None:
    if manifest is None:
        raise ValueError("--against needs the run's own manifest: give it with -f")
    run_against(folder, load_pool(manifest), engine, _console())


def _console() -> Console:
    return Console() if Console().is_terminal else Console(width=150)


def _sweep_options(options: Mapping[str, Any]) -> dict[str, Any]:
    names = ("policies", "loads", "seconds", "seeds", "replicas", "scenarios", "routers")
    return {name: options[name] for name in names} | {"rate_per_s": options["rate"]}


def _declared(manifest: Path | None, *, hard: bool) -> tuple[Mapping[str, SLOClass], Settings]:
    pool = None if manifest is None else load_pool(manifest)
    classes = paper_classes() if pool is None else pool.classes
    if hard:
        classes = {name: replace(slo, gain=replace(slo.gain, decay=inf)) for name, slo in classes.items()}
    return classes, Settings() if pool is None else pool.settings


def _source(options: Mapping[str, Any], classes: Mapping[str, SLOClass], engine: EngineProfile) -> tuple[Source, str]:
    """Where units come from, as `Sweep.workload` needs it, and what it is called."""
    workload, arrivals, scale = options["workload"], options["arrivals"], options["prompt_scale"]
    if workload == PAPER:
        return (paper(), PAPER) if arrivals == POISSON else _paper_as_in(Path(arrivals))
    if arrivals != POISSON:
        raise ValueError("--arrivals is for the paper's mix; a trace arrives as it did")
    longest_tokens = inf if options["longest"] else engine.kv_tokens / options["scale"]
    taken = Options(prompt_scale=scale, idle_s=options["idle"], longest_tokens=longest_tokens)
    path = Path(workload)
    return trace(path, classes, taken), path.name if scale == 1.0 else f"{path.name}, prompts x{scale:g}"


def _paper_as_in(path: Path) -> tuple[Source, str]:
    return paper(TraceGaps([unit.at_s for unit in read_trace(path)])), f"{PAPER}, arrivals of {path.name}"


def _report(sweep: Sweep, options: Mapping[str, Any]) -> None:
    from tempo_sim.report import pictured, render  # noqa: PLC0415  # matplotlib takes a second

    console = _console()
    if sweep.rate_per_s is None:
        console.print(f"Measuring capacity of {sweep.profile.name}...")
    capacity_per_s = capacity(sweep)
    each = " a replica" if sweep.rate_per_s is None else ""
    console.print(f"Load 1 is {capacity_per_s:.3f} units/s{each}; {len(sweep.cases)} runs.")
    if options["workloads"]:
        for file in write(sweep, capacity_per_s, options["workloads"]):
            console.print(file, soft_wrap=True)
        return
    rows, runs = _all(sweep, capacity_per_s, options["jobs"], console)
    for table in tables(rows):
        console.print(table)
    out: Path = options["out"]
    out.mkdir(parents=True, exist_ok=True)
    for file in filter(None, (out / "summary.json", options["json_file"])):
        file.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")
    shown = [runs[name] for name in pictured(rows, sweep) if name in runs]
    (out / "report.html").write_text(render(rows, sweep, capacity_per_s, shown), encoding="utf-8")
    console.print(f"Report: {out / 'report.html'}   figures: {out / 'summary.json'}", soft_wrap=True)


def _all(
    sweep: Sweep, capacity_per_s: float, jobs: int | None, console: Console
) -> tuple[list[Row], dict[str, Timeline]]:
    """All rows, in order, and the timelines by policy."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    found: list[Row] = []
    runs: dict[str, Timeline] = {}
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("simulating", total=len(sweep.cases))
        for rows, timeline in run(sweep, capacity_per_s, jobs):
            found += rows
            if timeline:
                runs[timeline.policy] = timeline
            progress.advance(task)
    contenders = dict.fromkeys(case.contender for case in sweep.cases)
    at = {name: place for place, name in enumerate((*sweep.scenarios, *contenders))}
    labels = ("scenario", "policy")
    found.sort(key=lambda row: (float(row["load"]), row["replicas"], *(at[row[name]] for name in labels), row["seed"]))
    return found, runs
