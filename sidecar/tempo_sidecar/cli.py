"""`tempo sidecar`."""

from pathlib import Path

import click
import numpy as np

from tempo_api.http.server import run_server
from tempo_api.manifest import ManifestError
from tempo_api.reload import Reloader
from tempo_core.graphs import PatternGraphs
from tempo_sidecar.drain import DrainNote
from tempo_sidecar.forest.model import ForestLengths
from tempo_sidecar.history import HistoryKeeper, open_store
from tempo_sidecar.proxy import Sidecar


@click.command(short_help="Proxy in front of one engine: tells it what each request is promised, and keeps score.")
@click.option("--engine-url", required=True, metavar="URL", help="The engine, such as http://127.0.0.1:8002.")
@click.option(
    "--config", required=True, type=click.Path(path_type=Path), help="Manifests of the pool and its SLO classes."
)
@click.option("--pool", metavar="NAME", help="Which pool of --config, if it has several.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8001, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--plugin-status", type=click.Path(path_type=Path), help="The file that the engine's TEMPO_STATUS_FILE names."
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to keep what was learned of lengths and programs; each sidecar needs its own.  [default: nowhere]",
)
@click.option(
    "--history",
    metavar="FILE|URL",
    envvar="TEMPO_HISTORY",
    show_envvar=True,
    help="Where to keep what was learned of programs instead: a Redis URL, to share it with others, or an SQLite file.",
)
@click.option(
    "--drain-seconds",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How long requests in flight may take to end after SIGTERM.",
)
@click.option(
    "--drain-file",
    type=click.Path(path_type=Path),
    metavar="NOTE",
    help="While this file exists, take no new request; NOTEed says that none is left.",
)
@click.option(
    "--max-in-flight",
    default=4096,
    show_default=True,
    type=click.IntRange(min=1),
    help="One request more is refused with 429.",
)
def sidecar(  # noqa: PLR0913, PLR0917  # one parameter an option
    engine_url: str,
    config: Path,
    pool: str | None,
    host: str,
    port: int,
    plugin_status: Path | None,
    state_dir: Path | None,
    history: str | None,
    drain_seconds: float,
    drain_file: Path | None,
    max_in_flight: int,
) -> None:
    """Proxy in front of one engine.

    Attaches to each request what the scheduler in the engine must know, streams the answer through byte for byte, and
    tracks TTFT, TBT, TTLT and service gain by SLO class. It learns from completions how long responses and programs
    will be; no prompt is logged or kept. Beside the proxied paths it serves /healthz, /readyz and /metrics, and the
    engine's own state at /engine/health and /engine/metrics. --config is read again whenever it changes.

    \b
    Example:
      tempo sidecar --engine-url http://127.0.0.1:8002 --config examples/quickstart.yaml --port 8001
    """  # noqa: D301  # click's mark for text that is not to be wrapped
    try:
        reloader = Reloader(config, pool)
    except ManifestError as error:
        raise click.ClickException(str(error)) from error
    lengths = ForestLengths(np.random.default_rng(), state_dir)
    location = history or (str(state_dir / "programs.sqlite") if state_dir else None)
    try:
        store = open_store(location, reloader.pool.name) if location else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--history") from error
    node = Sidecar(
        engine_url,
        reloader,
        lengths,
        history=HistoryKeeper(PatternGraphs(), store),
        plugin_status=plugin_status,
        drain_note=DrainNote(drain_file, drain_seconds) if drain_file else None,
        max_in_flight=max_in_flight,
    )
    run_server(node.app(), host, port, name="tempo sidecar", drain_s=drain_seconds)
