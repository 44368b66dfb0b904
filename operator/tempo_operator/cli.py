"""`tempo operator`."""

import logging
import socket
import uuid
from typing import Any

import click
import kopf
import yaml

from tempo_operator.controller import Settings
from tempo_operator.election import Terms
from tempo_operator.manifests import Options
from tempo_operator.manifests.options import ENGINE_IMAGE
from tempo_operator.runner import Config, Operator


def parse_peers(_ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[dict[str, Any], ...]:
    """NetworkPolicyPeers, as YAML or JSON.

    Raises:
        click.BadParameter: for anything but a list of objects.

    """
    try:
        peers = yaml.safe_load(value) if value else []
    except yaml.YAMLError as error:
        raise click.BadParameter(f"is not YAML: {error}", param=param) from error
    if not isinstance(peers, list) or not all(isinstance(peer, dict) for peer in peers):
        raise click.BadParameter("must be a list of NetworkPolicyPeers, such as '[{podSelector: {}}]'", param=param)
    return tuple(peers)


@click.command("operator", short_help="Controller of a cluster's TempoPools and SLOClasses.")
@click.option("--image", required=True, envvar="TEMPO_IMAGE", help="Image of router, sidecar and plug-in.")
@click.option("--engine-image", default=ENGINE_IMAGE, show_default=True, help="Engine of pools that name none.")
@click.option("--image-pull-secret", "pull_secrets", multiple=True, help="Name of a Secret in the pools' namespaces.")
@click.option(
    "--namespace", "namespaces", multiple=True, help="Serve the pools of this namespace only; may be repeated."
)
@click.option("--all-namespaces", is_flag=True, help="Serve the pools of all namespaces.")
@click.option("--network-policy/--no-network-policy", default=True, show_default=True, help="Fence the pools' pods in.")
@click.option("--metrics-from", callback=parse_peers, metavar="YAML", help="Who may read metrics: NetworkPolicyPeers.")
@click.option(
    "--drain-seconds",
    type=click.IntRange(min=0),
    default=300,
    show_default=True,
    help="How long requests in flight may go on in a pod that is to end.",
)
@click.option("--host", default="0.0.0.0", show_default=True, help="Address of probes and metrics.")  # noqa: S104
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Port of the same.")
@click.option("--lease-namespace", envvar="POD_NAMESPACE", help="Where the lease is.  [default: this pod's namespace]")
@click.option("--lease-name", default="tempo-operator", show_default=True, help="Operators of one lease take turns.")
@click.option(
    "--lease-seconds",
    type=click.FloatRange(min=1),
    default=20.0,
    show_default=True,
    help="How long an operator that vanished holds up the others.",
)
@click.option(
    "--look-seconds",
    type=click.FloatRange(min=0.1),
    default=15.0,
    show_default=True,
    help="How often the pods' metrics are read.",
)
@click.option(
    "--resync-seconds",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    help="How often everything is listed again, in case a watch missed something.",
)
def operator(  # noqa: PLR0913, PLR0917  # one parameter an option
    image: str,
    engine_image: str,
    pull_secrets: tuple[str, ...],
    namespaces: tuple[str, ...],
    all_namespaces: bool,
    network_policy: bool,
    metrics_from: tuple[dict[str, Any], ...],
    drain_seconds: int,
    host: str,
    port: int,
    lease_namespace: str | None,
    lease_name: str,
    lease_seconds: float,
    look_seconds: float,
    resync_seconds: float,
) -> None:
    """Keep a cluster's TempoPools as they are declared, and say how they fare in their status.

    It talks to the cluster of its pod's service account, or else of KUBECONFIG. Of several that share a lease one acts,
    and another takes over when it ends. Probes are at /healthz and /readyz, metrics at /metrics.

    \b
    Examples:
      tempo operator --image registry.example/tempo:0.1.0 --namespace models
      tempo operator --image registry.example/tempo:0.1.0 --all-namespaces --lease-namespace tempo-system
    """  # noqa: D301  # click's mark for text that is not to be wrapped
    if all_namespaces == bool(namespaces):
        raise click.UsageError("say whose pools to serve: --namespace NAME (once or more), or --all-namespaces")
    identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    config = Config(
        options=Options(
            image=image,
            engine_image=engine_image,
            image_pull_secrets=pull_secrets,
            drain_s=drain_seconds,
            network_policy=network_policy,
            metrics_from=metrics_from,
        ),
        settings=Settings(identity, None if all_namespaces else namespaces, look_seconds, resync_seconds),
        terms=Terms.of(lease_seconds),
        lease_namespace=lease_namespace or (namespaces[0] if namespaces else None),
        lease_name=lease_name,
        host=host,
        port=port,
    )
    _quieten()
    while _run(Operator(config)):
        pass


def _run(process: Operator) -> bool:
    """Returns whether to begin again.

    Raises:
        click.ClickException: if it ended for a reason that can be told.

    """
    again = False
    try:
        again = process.run()
    except kopf.LoginError as error:
        raise click.ClickException(str(error)) from error
    except Exception:  # of kopf's making; what matters is why
        if process.failure is None:
            raise
    if process.failure is not None:
        raise click.ClickException(str(process.failure) or repr(process.failure))
    return again


def _quieten() -> None:
    """Kopf tells of every object that it passes on; whoever wants that asks for --log-level debug."""
    if logging.getLogger().level > logging.DEBUG:
        logging.getLogger("kopf.objects").setLevel(logging.WARNING)
