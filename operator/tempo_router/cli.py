"""`tempo router`."""

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from aiohttp import web

from tempo_api.http.server import run_server
from tempo_api.manifest import ManifestError
from tempo_api.reload import Reloader
from tempo_router.access import AccessLog, Gate, KeysError, Lines, TLSError, TLSFiles
from tempo_router.app import build_app
from tempo_router.replicas import ReplicasError, ReplicasFile, problem_of
from tempo_router.tenants import Totals, open_totals

if TYPE_CHECKING:  # it needs an extra
    from tempo_router.tracing import Tracing

_SPANS_GO_TO: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def parse_replicas(_ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`NAME=URL` of each replica as URL by name.

    Raises:
        click.BadParameter: for anything else, and for a name that comes twice.

    """
    replicas: dict[str, str] = {}
    for value in values:
        name, _, url = value.partition("=")
        if problem := problem_of(name, url):
            raise click.BadParameter(f"{value!r}: {problem}", param=param)
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
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="API keys (YAML), read again whenever they change; who has none is refused.  [default: anybody may ask]",
)
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Speak TLS with this certificate (PEM), read again whenever it changes.",
)
@click.option("--tls-key", type=click.Path(path_type=Path), metavar="FILE", help="The private key of --tls-cert (PEM).")
@click.option(
    "--access-log",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE|-",
    help="Append a line of JSON for each request, without prompts and keys; -: to stderr.  [default: no log]",
)
@click.option(
    "--tenants",
    metavar="URL",
    envvar="TEMPO_TENANTS",
    show_envvar=True,
    help="Redis through which a pool's routers share what each tenant has been served.  [default: routers are"
    " independent, and a tenant's share holds at each]",
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
def router(  # noqa: PLR0913, PLR0917  # one parameter an option
    config: Path,
    pool: str | None,
    replicas: dict[str, str],
    replicas_file: Path | None,
    keys: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    access_log: Path | None,
    tenants: str | None,
    host: str,
    port: int,
    drain_seconds: float,
) -> None:
    """Serve a pool's OpenAI endpoint: each request goes to the replica that will finish it soonest.

    With OTEL_EXPORTER_OTLP_ENDPOINT set, each request becomes a span there, as OpenTelemetry's environment says.

    \b
    Example:
      tempo router --config pool.yaml --replica r0=http://10.0.0.1:9000 --replica r1=http://10.0.0.2:9000
    """  # noqa: D301  # click's mark for text that is not to be wrapped
    if bool(replicas) == bool(replicas_file):
        raise click.UsageError("Say where the sidecars are: with --replica or with --replicas-file, not both.")
    if bool(tls_cert) != bool(tls_key):
        raise click.UsageError("Give --tls-cert and --tls-key together.")
    try:
        reloader = Reloader(config, pool)
        if reloader.pool.spec.router.auth and not keys:
            raise click.UsageError("The pool's spec.router.auth asks for API keys; give the file with --keys.")
        where = ReplicasFile(replicas_file) if replicas_file else replicas
        app = build_app(reloader, where, tenants=_totals(tenants, reloader.pool.name), tracing=_tracing())
        tls = TLSFiles(tls_cert, tls_key) if tls_cert and tls_key else None
        _guard(app, keys, tls, access_log)
    except (ManifestError, ReplicasError, KeysError, TLSError) as error:
        raise click.ClickException(str(error)) from error
    _raise_file_limit()
    context = tls.context if tls else None
    run_server(app, host, port, name="router", drain_s=drain_seconds, ssl_context=context)


def _totals(url: str | None, pool: str) -> Totals | None:
    if not url:
        return None
    try:
        return open_totals(url, pool)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--tenants") from error


def _tracing() -> "Tracing | None":
    """Where OpenTelemetry's own environment asks for it."""
    asked = next((name for name in _SPANS_GO_TO if os.environ.get(name)), None)
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    if not asked or off:
        return None
    try:
        from tempo_router.tracing import open_tracing  # noqa: PLC0415  # its packages are an extra

        return open_tracing(asked, os.environ)
    except ImportError as error:
        remedy = f"pip install 'tempo-serving[otel]', or unset {asked}"
        raise click.ClickException(f"{asked} asks for traces, which need OpenTelemetry: {remedy}.") from error
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _guard(app: web.Application, keys: Path | None, tls: TLSFiles | None, access_log: Path | None) -> None:
    """What stands between clients and the app."""
    if keys:
        Gate(keys).install(app)
    if tls:
        tls.install(app)
    if access_log:
        try:
            lines = Lines(None if access_log == Path("-") else access_log)
        except OSError as error:
            raise click.BadParameter(
                f"{access_log} can't be written: {error.strerror}", param_hint="--access-log"
            ) from error
        AccessLog(lines).install(app)


def _raise_file_limit() -> None:
    """A stream takes two files, its client's and its upstream's; the usual soft limit of 1,024 would be 500 streams."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
