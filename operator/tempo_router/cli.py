"""`tempo router`."""

import resource
from pathlib import Path

import click

from tempo_api.http.server import run_server
from tempo_api.manifest import ManifestError
from tempo_api.reload import Reloader
from tempo_router.app import build_app
from tempo_router.replicas import ReplicasError, ReplicasFile, is_url


def parse_replicas(_ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`NAME=URL` of each replica as URL by name.

    Raises:
        click.BadParameter: for anything else, and for a name that comes twice.

    """
    replicas: dict[str, str] = {}
    for value in values:
        name, _, url = value.partition("=")
        if not name or not is_url(url):
            hint = "write a name and a URL, such as r0=http://127.0.0.1:9000"
            raise click.BadParameter(f"{value!r} is no replica; {hint}", param=param)
        if name in replicas:
            raise click.BadParameter(f"there are two called {name!r}; each needs a name of its own", param=param)
        replicas[name] = url
    return replicas


@click.command()
@click.option(
    "--config", type=click.Path(path_type=Path), required=True, help="Manifest file of the pool and its classes."
)
@click.option("--pool", help="Which of the file's pools, if there are several.")
@click.option(
    "--replica",
    "replicas",
    metavar="NAME=URL",
    callback=parse_replicas,
    multiple=True,
    help="A sidecar; repeat for each.",
)
@click.option(
    "--replicas-file",
    type=click.Path(path_type=Path),
    help="Instead of --replica: a YAML file of NAME: URL lines, read again whenever it changes.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="How long requests in flight may go on after SIGTERM.",
)
def router(
    config: Path,
    pool: str | None,
    replicas: dict[str, str],
    replicas_file: Path | None,
    host: str,
    port: int,
    drain_seconds: float,
) -> None:
    """Serve a pool's OpenAI endpoint: each request goes to the replica that will finish it soonest.

    \b
    Example:
      tempo router --config pool.yaml --replica r0=http://10.0.0.1:9000 --replica r1=http://10.0.0.2:9000
    """  # noqa: D301  # click's mark for text that is not to be wrapped
    if bool(replicas) == bool(replicas_file):
        raise click.UsageError("Say where the sidecars are: with --replica or with --replicas-file, not both.")
    try:
        reloader = Reloader(config, pool)
        followed = ReplicasFile(replicas_file) if replicas_file else replicas
    except (ManifestError, ReplicasError) as error:
        raise click.ClickException(str(error)) from error
    _raise_file_limit()
    run_server(build_app(reloader, followed), host, port, name="router", drain_s=drain_seconds)


def _raise_file_limit() -> None:
    """A stream takes two files, its client's and its upstream's; the usual soft limit of 1,024 would be 500 streams."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
