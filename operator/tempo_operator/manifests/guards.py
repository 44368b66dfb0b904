"""What protects a pool's pods and watches them: accounts, disruption budgets, network policies, a PodMonitor."""

from collections.abc import Sequence
from typing import Any, Final

from tempo_operator.manifests.names import POOL_LABEL, ROUTER_PORT, SIDECAR_PORT, Component, Names, selector
from tempo_operator.manifests.options import Options
from tempo_operator.manifests.pods import metadata

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


def router_policy(names: Names) -> dict[str, Any]:
    """Anybody may ask a router; a router itself talks to its sidecars and to DNS only."""
    engines = {"podSelector": {"matchLabels": selector(names.pool, "engine")}}
    spec = {
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [_tcp(ROUTER_PORT)]}],
        "egress": [{"to": [engines], "ports": [_tcp(SIDECAR_PORT)]}, {"ports": _DNS}],
    }
    return _policy(names, names.router, "router", spec)


def pod_monitor(names: Names) -> dict[str, Any]:
    """Has Prometheus read routers, sidecars and, by way of these, engines."""
    paths: Sequence[tuple[str, str]] = [("http", "/metrics"), ("sidecar", "/metrics"), ("sidecar", "/engine/metrics")]
    pool = {"targetLabel": "pool", "replacement": names.pool}  # what dashboards and alerts tell pools apart by
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata(names.pool, names.namespace),
        "spec": {
            "selector": {"matchLabels": {POOL_LABEL: names.pool}},
            "podMetricsEndpoints": [{"port": port, "path": path, "relabelings": [pool]} for port, path in paths],
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
