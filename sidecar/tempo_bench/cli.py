"""`tempo bench`: the command line."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from tempo_bench.overhead import run_overhead
from tempo_bench.pool import PoolError
from tempo_bench.replay import ReplaySpec, run_replay
from tempo_bench.single import LoadSpec, run_load

_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}
_POSITIVE = click.FloatRange(min=0.0, min_open=True)
_PATH = click.Path(path_type=Path)

_EPILOG = """\b
Examples:
  tempo bench demo              # vLLM's own order and Tempo under the same overload
  tempo bench load --url http://127.0.0.1:8000/v1 --rate 2 --seconds 60
  tempo bench replay build/workload/*.jsonl     # a trace, with its own lengths
  tempo bench overhead          # what router, sidecar and scheduler cost
  tempo bench router            # what a request costs in other routers and in Tempo's
"""

_DEMO_EPILOG = """\b
Examples:
  tempo bench demo
  tempo bench demo --quick
  tempo bench demo --seeds 1,2,3 --seconds 300
  tempo bench demo --rate 1.2 --policies engine,fcfs,tempo
"""

_LOAD_EPILOG = """\b
Examples:
  tempo bench load --rate 2 --seconds 60
  tempo bench load --url http://10.0.0.7:8000/v1 -f pool.yaml --seed 7 --json rows.json
"""

_REPLAY_EPILOG = """\b
Examples:
  tempo simulate --profile cpu-smollm2-135m --scale 0.1 --loads 1.5 --seeds 1,2,3 --seconds 60 --write build/workload
  tempo bench replay build/workload/*.jsonl
  tempo simulate -f examples/quickstart.yaml --profile cpu-smollm2-135m --against build/replay
"""

_OVERHEAD_EPILOG = """\b
Examples:
  tempo bench overhead
  tempo bench overhead --scale 0.2 --out build/look
"""

_ROUTER_EPILOG = """\b
Examples:
  tempo bench router --scale 0.1                # a look, not a result
  tempo bench router --rivals build/rivals      # what `make bench-router` runs
  tempo bench router --soak 600                 # memory over ten minutes
  tempo bench router --streams 2000 --gap 250   # so many streams through one process
  tempo bench router --failures                 # one of four replicas is killed, stopped, slow, ...
"""


def _words(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _integers(context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _words(context, parameter, text))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list of integers such as 1,2,3") from error


_manifest = click.option(
    "-f",
    "--manifest",
    type=_PATH,
    default=Path("examples/quickstart.yaml"),
    metavar="FILE",
    help="The pool and its classes.",
)


@click.group(epilog=_EPILOG, context_settings=_SETTINGS)
def bench() -> None:
    """Measure a pool: seeded load, fair comparison, honest figures."""
    signal.signal(signal.SIGTERM, _terminated)


@bench.command(epilog=_DEMO_EPILOG)
@_manifest
@click.option(
    "--policies", callback=_words, default="engine,tempo", help="In this order; the first is what others are held to."
)
@click.option("--seeds", callback=_integers, default="1", help="Each load is run once for each.")
@click.option("--light", type=_POSITIVE, default=0.5, help="Light load, in capacities.")
@click.option("--overload", type=_POSITIVE, default=1.5, help="Overload, in capacities.")
@click.option("--light-seconds", type=_POSITIVE, default=40.0, help="How long requests of the light load arrive.")
@click.option("--seconds", type=_POSITIVE, default=100.0, help="How long requests of the overload arrive.")
@click.option("--rate", type=_POSITIVE, help="Capacity in units/s, instead of measuring it.")
@click.option("--out", type=_PATH, default=Path("build/demo"), metavar="FOLDER", help="Where results go.")
@click.option("--quick", is_flag=True, help="A third of both durations: a look, not a result.")
def demo(quick: bool, **options: Any) -> None:
    """Send the same workloads through several policies and compare them."""
    from tempo_bench.demo import DemoSpec, run_demo  # noqa: PLC0415  # matplotlib takes a second; only this needs it

    if quick:
        options |= {name: options[name] / 3.0 for name in ("light_seconds", "seconds")}
    try:
        sound = run_demo(DemoSpec(**options), _console())
    except (PoolError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    sys.exit(0 if sound else 1)


@bench.command(epilog=_LOAD_EPILOG)
@_manifest
@click.option("--url", default="http://127.0.0.1:8000/v1", help="Base URL of any OpenAI endpoint.")
@click.option("--model", help="Name to ask for.  [default: the pool's]", show_default=False)
@click.option("--rate", type=_POSITIVE, default=1.0, help="Units (a chat, a tool call or a program) a second.")
@click.option(
    "--seconds", type=_POSITIVE, default=60.0, help="How long requests arrive; all are followed to their end."
)
@click.option("--seed", type=int, default=1, help="The same seed sends the same requests at the same times.")
@click.option("--json", "json_file", type=_PATH, metavar="FILE", help="Write the rows here.")
def load(**options: Any) -> None:
    """Send one workload to an endpoint and say what came of it."""
    try:
        sound = asyncio.run(run_load(LoadSpec(**options), _console()))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(0 if sound else 1)


@bench.command(epilog=_REPLAY_EPILOG)
@click.argument("files", nargs=-1, required=True, type=_PATH, metavar="FILE...")
@_manifest
@click.option(
    "--policies",
    callback=_words,
    default="engine,engine-priority,tempo",
    help="engine and engine-priority are vLLM's own orders; the first is what others are held to.",
)
@click.option("--warm-up", type=_PATH, metavar="FILE", help="Sent first and not counted: lengths are learned from it.")
@click.option("--url", help="An endpoint that already runs, with lengths forced, instead of pools of our own.")
@click.option("--model", help="Name to ask for.  [default: the pool's]", show_default=False)
@click.option("--out", type=_PATH, default=Path("build/replay"), metavar="FOLDER", help="Where results go.")
def replay(**options: Any) -> None:
    """Send workload files (see docs/workloads.md), a seed each, with every answer as long as its file says."""
    try:
        sound = run_replay(ReplaySpec(**options), _console())
    except (PoolError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    sys.exit(0 if sound else 1)


@bench.command(epilog=_OVERHEAD_EPILOG)
@_manifest
@click.option("--out", type=_PATH, default=Path("build/bench-overhead"), metavar="FOLDER", help="Where results go.")
@click.option("--scale", type=click.FloatRange(0.01, 10.0), default=1.0, help="Times the usual number of requests.")
def overhead(manifest: Path, out: Path, scale: float) -> None:
    """CPU and latency of router and sidecar with an instant backend, and the time of a scheduling decision."""
    try:
        run_overhead(manifest, out, scale, _console())
    except (PoolError, ValueError) as error:
        raise click.ClickException(str(error)) from error


@bench.command(epilog=_ROUTER_EPILOG)
@click.option(
    "--rivals",
    type=_PATH,
    default=Path("build/rivals"),
    metavar="FOLDER",
    help="Virtual environment that has the other routers; those it lacks are left out.",
)
@click.option("--out", type=_PATH, default=Path("build/bench-router"), metavar="FOLDER", help="Where results go.")
@click.option("--scale", type=click.FloatRange(0.01, 10.0), default=1.0, help="Times the usual duration of everything.")
@click.option(
    "--soak", type=_POSITIVE, metavar="SECONDS", help="Instead: memory of Tempo's router under a steady load."
)
@click.option(
    "--streams", type=click.IntRange(1, 20_000), help="Instead: so many streams at once through Tempo's router."
)
@click.option("--gap", type=click.IntRange(1), default=50, metavar="MS", help="Between the chunks of --streams.")
@click.option("--failures", is_flag=True, help="Instead: what clients see while replicas of Tempo's router fail.")
def router(
    rivals: Path, out: Path, scale: float, soak: float | None, streams: int | None, gap: int, failures: bool
) -> None:
    """Latency, throughput, CPU and memory of routers side by side, in front of the same instant backend."""
    from tempo_bench.routers.cases import Plan  # noqa: PLC0415  # only this needs them
    from tempo_bench.routers.failures import run_failures  # noqa: PLC0415
    from tempo_bench.routers.run import run_routers  # noqa: PLC0415
    from tempo_bench.routers.soak import run_soak  # noqa: PLC0415
    from tempo_bench.routers.streams import run_streams  # noqa: PLC0415

    if sum(map(bool, (soak, streams, failures))) > 1:
        raise click.UsageError("Choose one of --soak, --streams and --failures; each is a run of its own.")
    try:
        if soak:
            sound = run_soak(soak, out, _console())
        elif streams:
            sound = run_streams(streams, gap, out, _console())
        elif failures:
            sound = run_failures(out, scale, _console())
        else:
            sound = run_routers(rivals, out, Plan().scaled(scale), _console())
    except PoolError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(0 if sound else 1)


def _console() -> Console:
    """Wide enough for the tables where there is no terminal to ask."""
    return Console() if sys.stdout.isatty() else Console(width=140)


def _terminated(*_: object) -> NoReturn:
    """End like Ctrl-C does, so that what was started is stopped."""
    raise SystemExit(128 + signal.SIGTERM)
