"""The routers of a pool: a Deployment, and the Service that clients use.

A router is ready as long as it lives: where no engine is, a client had better get an OpenAI-shaped 503 with Retry-After
than a refused connection.
"""

from typing import Any, Final

from tempo_api.manifest import Pool
from tempo_operator.commands import router_argv
from tempo_operator.manifests.names import CONFIG_KEY, REPLICAS_KEY, ROUTER_PORT, Names, labels, selector
from tempo_operator.manifests.options import Options
from tempo_operator.manifests.pods import (
    CONFIG_DIR,
    RESTRICTED,
    http_get,
    metadata,
    mount,
    pod_spec,
    resources,
    volume,
)

_LEAVE_S: Final = 5
"""Between the end of a router's place in the Service and its drain: the time that the news takes to get around."""
_SETTLE_S: Final = 10
_RESOURCES: Final = {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
"""No limit on CPU: being throttled would show as time to first token."""


def router_service(names: Names, pool: Pool) -> dict[str, Any]:
    """Where clients connect."""
    service = pool.spec.router.service
    notes = {"annotations": service.annotations} if service.annotations else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(names.router, names.namespace, **notes),
        "spec": {
            "type": service.type,
            "selector": selector(names.pool, "router"),
            "ports": [{"name": "http", "port": service.port, "targetPort": ROUTER_PORT, "protocol": "TCP"}],
        },
    }


def router_deployment(names: Names, pool: Pool, options: Options) -> dict[str, Any]:
    """The router pods; a new one is there before an old one goes."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(names.router, names.namespace),
        "spec": {
            "replicas": pool.spec.router.replicas,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": selector(names.pool, "router")},
            "template": {
                "metadata": {"labels": labels(names.pool, "router")},
                "spec": {
                    **pod_spec(names.pool, "router", names.router, options),
                    "terminationGracePeriodSeconds": _LEAVE_S + options.drain_s + _SETTLE_S,
                    "containers": [_container(pool, options)],
                    "volumes": [volume("tempo-config", configMap={"name": names.config})],
                },
            },
        },
    }


def _container(pool: Pool, options: Options) -> dict[str, Any]:
    argv = router_argv(["tempo"], f"{CONFIG_DIR}/{CONFIG_KEY}", "0.0.0.0", ROUTER_PORT)  # noqa: S104  # the pod's one port
    argv += ["--replicas-file", f"{CONFIG_DIR}/{REPLICAS_KEY}", "--drain-seconds", str(options.drain_s)]
    alive = {**http_get(ROUTER_PORT, "/healthz"), "timeoutSeconds": 5}
    return {
        "name": "router",
        "image": options.image,
        "command": argv,
        "ports": [{"name": "http", "containerPort": ROUTER_PORT, "protocol": "TCP"}],
        "readinessProbe": {**alive, "periodSeconds": 2},
        "livenessProbe": {**alive, "periodSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"sleep": {"seconds": _LEAVE_S}}},
        "resources": resources(pool.spec.router.resources, _RESOURCES),
        "securityContext": dict(RESTRICTED),
        "volumeMounts": [mount("tempo-config", CONFIG_DIR, read_only=True)],
    }
