"""`tempo sim-engine`."""

from pathlib import Path

import click

from tempo_api.http.server import run_server
from tempo_api.manifest import ManifestError
from tempo_api.reload import Reloader
from tempo_sim.profiles import PROFILES
from tempo_sim.serve import Server


@click.command("sim-engine", short_help="An engine without a GPU or a model: real time, made-up words.")
@click.option(
    "--config", required=True, type=click.Path(path_type=Path), help="Manifests of the pool and its SLO classes."
)
@click.option("--pool", metavar="NAME", help="Which pool of --config, if it has several.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8002, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--profile",
    type=click.Choice(sorted(PROFILES)),
    default="llama-3.1-8b-h100",
    show_default=True,
    help="Whose pace to keep.",
)
def sim_engine(config: Path, pool: str | None, host: str, port: int, profile: str) -> None:
    """Serve OpenAI's API at the pace of a measured engine, without a GPU or a model.

    The words mean nothing, and say so; when they come is decided by the policy that a real engine would run. Answers
    are as long as their prompt decides, or as max_tokens allows. For a pool with engine.kind: Simulated.

    \b
    Example:
      tempo sim-engine --config examples/quickstart.yaml --profile llama-3.1-8b-h100
    """  # noqa: D301  # click's mark for text that is not to be wrapped
    try:
        reloader = Reloader(config, pool)
    except ManifestError as error:
        raise click.ClickException(str(error)) from error
    run_server(Server(reloader, PROFILES[profile]).app(), host, port, name="sim-engine", drain_s=5.0)
