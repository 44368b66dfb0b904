"""What protects a pool's pods and watches them: accounts, disruption budgets, network policies, a PodMonitor."""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from tempo_api.manifest import Pool
from tempo_operator.manifests.names import (
    POOL_LABEL,
    ROUTER_PORT,
    SIDECAR_PORT,
    Component,
    Names,
    router_port,
    selector,
)
from tempo_operator.manifests.options import Options
from tempo_operator.manifests.pods import metadata

_REDIS_PORT: Final = 6379
_DNS: Final = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]


def service_account(names: Names, name: str) -> dict[str, Any]:
    """An account without rights or token: no part of a pool talks to the API server, so there are no Roles either."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(name, names.namespace),
        "automountServiceAccountToken": False,
    }


def disruption_budget(names: Names, name: str, component: Component) -> dict[str, Any]:
    """Nodes are drained one pod at a time; a pod that isn't ready holds nobody up."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(name, names.namespace),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(names.pool, component)},
        },
    }


def engine_policy(names: Names, options: Options) -> dict[str, Any]:
    """Only this pool's routers, and whoever reads metrics, reach the sidecars; engines may fetch their models."""
    routers = {"podSelector": {"matchLabels": selector(names.pool, "router")}}
    sources = [routers, *options.metrics_from]
    spec = {"policyTypes": ["Ingress"], "ingress": [{"from": sources, "ports": [_tcp(SIDECAR_PORT)]}]}
    return _policy(names, names.engines, "engine", spec)


def router_policy(names: Names, pool: Pool) -> dict[str, Any]:
    """Anybody may ask a router; a router itself talks to its sidecars, to DNS, and to the pool's Redis and collector.

    Where the Redis is, only a Secret says, which the operator doesn't read, and policies know no names: any address,
    but no port except Redis' own and that of the collector's URL.
    """
    engines = {"podSelector": {"matchLabels": selector(names.pool, "engine")}}
    ports = [_REDIS_PORT] if pool.spec.history.redis else []
    if tracing := pool.spec.router.tracing:
        collector = urlsplit(tracing.endpoint)
        ports.append(collector.port or {"http": 80, "https": 443}[collector.scheme])
    others = [{"ports": [_tcp(port)]} for port in ports]
    spec = {
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [_tcp(ROUTER_PORT)]}],
        "egress": [{"to": [engines], "ports": [_tcp(SIDECAR_PORT)]}, {"ports": _DNS}, *others],
    }
    return _policy(names, names.router, "router", spec)


def pod_monitor(names: Names, pool: Pool) -> dict[str, Any]:
    """Has Prometheus read routers, sidecars and, by way of these, engines."""
    # A router's certificate is for its Service; Prometheus asks pods by their addresses.
    tls = pool.spec.router.tls is not None
    how = {"scheme": "https", "tlsConfig": {"insecureSkipVerify": True}} if tls else {}
    endpoints: Sequence[dict[str, Any]] = [
        {"port": router_port(tls=tls), "path": "/metrics", **how},
        {"port": "sidecar", "path": "/metrics"},
        {"port": "sidecar", "path": "/engine/metrics"},
    ]
    label = {"targetLabel": "pool", "replacement": names.pool}  # what dashboards and alerts tell pools apart by
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata(names.pool, names.namespace),
        "spec": {
            "selector": {"matchLabels": {POOL_LABEL: names.pool}},
            "podMetricsEndpoints": [{**endpoint, "relabelings": [label]} for endpoint in endpoints],
        },
    }


def _policy(names: Names, name: str, component: Component, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(name, names.namespace),
        "spec": {"podSelector": {"matchLabels": selector(names.pool, component)}, **spec},
    }


def _tcp(port: int) -> dict[str, Any]:
    return {"port": port, "protocol": "TCP"}
