"""The routers of a pool: a Deployment, and the Service that clients use.

A router is ready as long as it lives: where no engine is, a client had better get an OpenAI-shaped 503 with Retry-After
than a refused connection.
"""

from typing import Any, Final

from tempo_api.manifest import Pool
from tempo_api.manifest.spec import RouterSpec
from tempo_operator.commands import router_argv
from tempo_operator.manifests.names import (
    CONFIG_KEY,
    KEYS_KEY,
    REPLICAS_KEY,
    ROUTER_PORT,
    Names,
    labels,
    router_port,
    selector,
)
from tempo_operator.manifests.options import Options
from tempo_operator.manifests.pods import (
    CONFIG_DIR,
    RESTRICTED,
    env_list,
    http_get,
    metadata,
    mount,
    pod_spec,
    redis_env,
    resources,
    volume,
)

_KEYS: Final = "tempo-keys"
_TLS: Final = "tempo-tls"
_SECRET_DIRS: Final = {_KEYS: "/tempo/keys", _TLS: "/tempo/tls"}
"""Where the volumes are seen that hold Secrets."""
_LEAVE_S: Final = 5
"""Between the end of a router's place in the Service and its drain: the time that the news takes to get around."""
_SETTLE_S: Final = 10
_RESOURCES: Final = {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
"""No limit on CPU: being throttled would show as time to first token."""


def router_service(names: Names, pool: Pool) -> dict[str, Any]:
    """Where clients connect."""
    service = pool.spec.router.service
    notes = {"annotations": service.annotations} if service.annotations else {}
    port = router_port(tls=pool.spec.router.tls is not None)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(names.router, names.namespace, **notes),
        "spec": {
            "type": service.type,
            "selector": selector(names.pool, "router"),
            "ports": [{"name": port, "port": service.port, "targetPort": ROUTER_PORT, "protocol": "TCP"}],
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
                    "volumes": [volume("tempo-config", configMap={"name": names.config}), *_secrets(pool.spec.router)],
                },
            },
        },
    }


def _container(pool: Pool, options: Options) -> dict[str, Any]:
    tls = pool.spec.router.tls is not None
    alive = {**http_get(ROUTER_PORT, "/healthz", tls=tls), "timeoutSeconds": 5}
    return {
        "name": "router",
        "image": options.image,
        "command": _argv(pool.spec.router, options),
        **_env(pool),
        "ports": [{"name": router_port(tls=tls), "containerPort": ROUTER_PORT, "protocol": "TCP"}],
        "readinessProbe": {**alive, "periodSeconds": 2},
        "livenessProbe": {**alive, "periodSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"sleep": {"seconds": _LEAVE_S}}},
        "resources": resources(pool.spec.router.resources, _RESOURCES),
        "securityContext": dict(RESTRICTED),
        "volumeMounts": [
            mount("tempo-config", CONFIG_DIR, read_only=True),
            *(mount(item["name"], _SECRET_DIRS[item["name"]], read_only=True) for item in _secrets(pool.spec.router)),
        ],
    }


def _env(pool: Pool) -> dict[str, Any]:
    env = redis_env(pool, "TEMPO_TENANTS").get("env", [])
    if tracing := pool.spec.router.tracing:
        otel = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": tracing.endpoint,
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": f"{tracing.sample_ratio:g}",
        }
        env = [*env, *env_list(otel)]
    return {"env": env} if env else {}


def _argv(router: RouterSpec, options: Options) -> list[str]:
    argv = router_argv(["tempo"], f"{CONFIG_DIR}/{CONFIG_KEY}", "0.0.0.0", ROUTER_PORT)  # noqa: S104  # the pod's one port
    argv += ["--replicas-file", f"{CONFIG_DIR}/{REPLICAS_KEY}", "--drain-seconds", str(options.drain_s)]
    if router.auth:
        argv += ["--keys", f"{_SECRET_DIRS[_KEYS]}/{KEYS_KEY}"]
    if router.tls:
        argv += ["--tls-cert", f"{_SECRET_DIRS[_TLS]}/tls.crt", "--tls-key", f"{_SECRET_DIRS[_TLS]}/tls.key"]
    return [*argv, "--access-log", "-"] if router.access_log else argv


def _secrets(router: RouterSpec) -> list[dict[str, Any]]:
    """Volumes, each mounted whole, so that it follows its Secret; a pod waits for Secrets that are not there."""
    found = []
    if router.auth:
        ref = router.auth.secret_ref
        items = [{"key": ref.key or KEYS_KEY, "path": KEYS_KEY}]
        found.append(volume(_KEYS, secret={"secretName": ref.name, "items": items}))
    if router.tls:
        found.append(volume(_TLS, secret={"secretName": router.tls.secret_ref.name}))
    return found
