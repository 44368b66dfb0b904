"""The engines of a pool: a StatefulSet, whose pods have stable names, and the headless Service that resolves them.

In each pod, in this order:

1. `plugin`, an init container, lays Tempo's packages where the engine's Python finds them.
2. `sidecar`, a native sidecar, serves the pod's port. The pod is ready when it says that the engine is.
3. `engine` listens on loopback.

When a pod is asked to end, the engine is the first to get SIGTERM, while requests still go through the sidecar to it.
So the engine's `preStop` leaves a note for the sidecar (`--drain-file`), which then takes no new request, and waits
until it says that the last one has ended. A new engine in the same pod starts by removing the notes.
"""

from typing import Any, Final

import msgspec

from tempo_api.manifest import Pool
from tempo_operator.commands import LOOPBACK, plugin_env, sidecar_argv, vllm_argv
from tempo_operator.manifests.names import CONFIG_KEY, ENGINE_PORT, SIDECAR_PORT, Names, labels, selector
from tempo_operator.manifests.options import Options
from tempo_operator.manifests.pods import (
    CONFIG_DIR,
    RESTRICTED,
    by_name,
    env_list,
    http_get,
    metadata,
    mount,
    pod_spec,
    redis_env,
    resources,
    volume,
)

SIM_PROFILE: Final = "llama-3.1-8b-h100"
"""What a simulated engine plays, unless `engine.args` says otherwise."""

_CONFIG: Final = f"{CONFIG_DIR}/{CONFIG_KEY}"
_RUN_DIR: Final = "/tempo/run"
_STATUS: Final = f"{_RUN_DIR}/status.json"
_DRAIN: Final = f"{_RUN_DIR}/drain"
_LIB_DIR: Final = "/tempo/lib"
_STATE_DIR: Final = "/tempo/state"
_CACHE_DIR: Final = "/tempo/cache"
_SETTLE_S: Final = 30
"""On top of the drain: for the engine and the sidecar themselves to end."""
_SIDECAR_RESOURCES: Final = {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
_SMALL: Final = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}
_SIMULATED: Final = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}}


def engine_service(names: Names) -> dict[str, Any]:
    """Resolves every engine pod's name, ready or not: whether a replica is ready is for the router to find out."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(names.engines, names.namespace),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(names.pool, "engine"),
            "ports": [{"name": "sidecar", "port": SIDECAR_PORT, "targetPort": SIDECAR_PORT, "protocol": "TCP"}],
        },
    }


def engine_set(names: Names, pool: Pool, options: Options, replicas: int) -> dict[str, Any]:
    """The engine pods. They start together, and are replaced one at a time, each once the last is ready."""
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(names.engines, names.namespace),
        "spec": {
            "replicas": replicas,
            "serviceName": names.engines,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": selector(names.pool, "engine")},
            "template": {
                "metadata": {
                    "labels": labels(names.pool, "engine"),
                    "annotations": {"kubectl.kubernetes.io/default-container": "engine"},
                },
                "spec": _pod(names, pool, options),
            },
        },
    }


def _pod(names: Names, pool: Pool, options: Options) -> dict[str, Any]:
    engine = pool.spec.engine
    simulated = engine.kind == "Simulated"
    container = _simulated(pool, options) if simulated else _vllm(pool, options)
    sidecar = _sidecar(pool, options)
    init = [sidecar] if simulated else [_plugin(options), sidecar]
    placement = {
        "nodeSelector": engine.node_selector,
        "tolerations": msgspec.to_builtins(engine.tolerations),
    }
    return {
        **pod_spec(names.pool, "engine", names.engines, options),
        **{key: value for key, value in placement.items() if value},
        "terminationGracePeriodSeconds": options.drain_s + _SETTLE_S,
        "initContainers": init,
        "containers": [container],
        "volumes": by_name(_volumes(names, simulated=simulated), engine.volumes, "name"),
    }


def _volumes(names: Names, *, simulated: bool) -> list[dict[str, Any]]:
    shared = [
        volume("tempo-config", configMap={"name": names.config}),
        volume("tempo-run", emptyDir={"sizeLimit": "1Mi"}),
        volume("tempo-state", emptyDir={"sizeLimit": "1Gi"}),
        volume("tempo-tmp", emptyDir={"sizeLimit": "256Mi"}),
    ]
    if simulated:
        return shared
    return [
        *shared,
        volume("tempo-lib", emptyDir={"sizeLimit": "16Mi"}),
        volume("tempo-cache", emptyDir={}),
        volume("tempo-shm", emptyDir={"medium": "Memory"}),
    ]


def _plugin(options: Options) -> dict[str, Any]:
    return {
        "name": "plugin",
        "image": options.image,
        "command": ["python", "-m", "tempo_vllm.lay", _LIB_DIR],
        "resources": _SMALL,
        "securityContext": dict(RESTRICTED),
        "volumeMounts": [mount("tempo-lib", _LIB_DIR)],
    }


def _sidecar(pool: Pool, options: Options) -> dict[str, Any]:
    argv = sidecar_argv(["tempo"], _CONFIG, "0.0.0.0", SIDECAR_PORT, ENGINE_PORT)  # noqa: S104  # the pod's one port
    argv += ["--plugin-status", _STATUS, "--state-dir", _STATE_DIR]
    argv += ["--drain-file", _DRAIN, "--drain-seconds", str(options.drain_s)]
    return {
        "name": "sidecar",
        "image": options.image,
        "restartPolicy": "Always",
        "command": argv,
        **redis_env(pool, "TEMPO_HISTORY"),
        "ports": [{"name": "sidecar", "containerPort": SIDECAR_PORT, "protocol": "TCP"}],
        "readinessProbe": {**http_get(SIDECAR_PORT, "/readyz"), "periodSeconds": 2, "timeoutSeconds": 5},
        "livenessProbe": {**http_get(SIDECAR_PORT, "/healthz"), "periodSeconds": 10, "timeoutSeconds": 10},
        "resources": _SIDECAR_RESOURCES,
        "securityContext": dict(RESTRICTED),
        "volumeMounts": [
            mount("tempo-config", CONFIG_DIR, read_only=True),
            mount("tempo-run", _RUN_DIR),
            mount("tempo-state", _STATE_DIR),
            mount("tempo-tmp", "/tmp"),  # noqa: S108  # in a container of our own
        ],
    }


def _vllm(pool: Pool, options: Options) -> dict[str, Any]:
    engine = pool.spec.engine
    theirs = {entry.name: entry.value for entry in engine.env}
    env = {
        **plugin_env(_CONFIG, _STATUS),
        "PYTHONPATH": ":".join(path for path in (_LIB_DIR, theirs.get("PYTHONPATH")) if path),
        "HF_HOME": _CACHE_DIR,  # outlives the container, so that a restart fetches no model again
        "VLLM_NO_USAGE_STATS": "1",
    }
    passed_on = [entry for entry in msgspec.to_builtins(engine.env) if entry["name"] != "PYTHONPATH"]
    mounts = [
        mount("tempo-config", CONFIG_DIR, read_only=True),
        mount("tempo-run", _RUN_DIR),
        mount("tempo-lib", _LIB_DIR, read_only=True),
        mount("tempo-cache", _CACHE_DIR),
        mount("tempo-shm", "/dev/shm"),  # noqa: S108  # tensor-parallel workers talk through it
    ]
    return {
        "name": "engine",
        "image": engine.image or options.engine_image,
        "command": [*vllm_argv(pool, "python3", pool.spec.model, ENGINE_PORT), *engine.args],
        "env": by_name(env_list(env), passed_on, "name"),
        **_engine_common(),
        "resources": resources(engine.resources, {"limits": {"nvidia.com/gpu": engine.tensor_parallel_size}}),
        # vLLM's image runs as root, and writes where its libraries keep what they compile.
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": by_name(mounts, engine.volume_mounts, "mountPath"),
    }


def _simulated(pool: Pool, options: Options) -> dict[str, Any]:
    engine = pool.spec.engine
    argv = ["tempo", "sim-engine", "--config", _CONFIG, "--host", LOOPBACK, "--port", str(ENGINE_PORT)]
    mounts = [mount("tempo-config", CONFIG_DIR, read_only=True), mount("tempo-run", _RUN_DIR)]
    return {
        "name": "engine",
        "image": engine.image or options.image,
        "command": [*argv, "--profile", SIM_PROFILE, *engine.args],
        "env": by_name(env_list(plugin_env(_CONFIG, _STATUS)), msgspec.to_builtins(engine.env), "name"),
        **_engine_common(),
        "resources": resources(engine.resources, _SIMULATED),
        "securityContext": dict(RESTRICTED),
        "volumeMounts": by_name(mounts, engine.volume_mounts, "mountPath"),
    }


def _engine_common() -> dict[str, Any]:
    """Probes and hooks. The engine is asked by way of the sidecar, for nothing outside the pod reaches it."""
    asks = http_get(SIDECAR_PORT, "/engine/health")
    wait = f"touch {_DRAIN}; while [ -e {_DRAIN} ] && [ ! -e {_DRAIN}ed ]; do sleep 1; done"
    return {
        "startupProbe": {**asks, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 720},
        "livenessProbe": {
            **asks,
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 30,
            "terminationGracePeriodSeconds": 10,
        },
        "lifecycle": {
            "postStart": {"exec": {"command": ["rm", "-f", _DRAIN, f"{_DRAIN}ed"]}},
            "preStop": {"exec": {"command": ["sh", "-c", wait]}},
        },
    }
