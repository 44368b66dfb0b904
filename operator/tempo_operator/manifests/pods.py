"""What the pods of a pool have in common."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from tempo_api.manifest import Pool
from tempo_api.manifest.spec import Resources
from tempo_operator.manifests.names import URL_KEY, Component, selector
from tempo_operator.manifests.options import Options

CONFIG_DIR: Final = "/tempo/config"
"""The pool's ConfigMap, mounted whole: a mounted single file would never see an update."""

_USER: Final = 65532
"""The Tempo image's."""
RESTRICTED: Final[Mapping[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsGroup": _USER,
    "runAsNonRoot": True,
    "runAsUser": _USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def metadata(name: str, namespace: str, **more: Any) -> dict[str, Any]:
    """An object's metadata; its labels come with `pool_objects`."""
    return {"name": name, "namespace": namespace, **more}


def pod_spec(pool: str, component: Component, service_account: str, options: Options) -> dict[str, Any]:
    """A pod without containers: no access to the API, and spread over nodes where that is possible."""
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(pool, component)},
    }
    secrets = [{"name": name} for name in options.image_pull_secrets]
    return {
        "serviceAccountName": service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": [spread],
        **({"imagePullSecrets": secrets} if secrets else {}),
    }


def http_get(port: int, path: str, *, tls: bool = False) -> dict[str, Any]:
    """A probe's question; over TLS, whoever the certificate is for."""
    return {"httpGet": {"path": path, "port": port, **({"scheme": "HTTPS"} if tls else {})}}


def env_list(env: Mapping[str, str]) -> list[dict[str, Any]]:
    """An environment as a container has it."""
    return [{"name": name, "value": value} for name, value in env.items()]


def redis_env(pool: Pool, name: str) -> dict[str, Any]:
    """A Redis' URL may hold a password, so it comes from a Secret into the environment, past the command line."""
    redis = pool.spec.history.redis
    if redis is None:
        return {}
    source = {"name": redis.secret_ref.name, "key": redis.secret_ref.key or URL_KEY}
    return {"env": [{"name": name, "valueFrom": {"secretKeyRef": source}}]}


def resources(asked_for: Resources | None, default: Mapping[str, Any]) -> dict[str, Any]:
    """A container's resources: what the pool asks for, or else ours; as texts, as the API server keeps them."""
    wanted: Mapping[str, Any] = default if asked_for is None else msgspec.to_builtins(asked_for)
    return {which: {name: str(amount) for name, amount in amounts.items()} for which, amounts in wanted.items()}


def volume(name: str, **source: Any) -> dict[str, Any]:
    """A pod's volume."""
    return {"name": name, **source}


def mount(name: str, path: str, *, read_only: bool = False) -> dict[str, Any]:
    """A container's view of a volume."""
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}


def by_name(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], key: str
) -> list[Mapping[str, Any]]:
    """Both lists, without those of ours for which the pool has its own by the same `key`."""
    taken = {entry[key] for entry in theirs}
    return [*(entry for entry in ours if entry[key] not in taken), *theirs]
