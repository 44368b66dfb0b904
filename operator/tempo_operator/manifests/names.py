"""What a pool's objects are called, how they are labelled, and where they listen."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

MANAGER: Final = "tempo-operator"
"""In `app.kubernetes.io/managed-by`, and the field manager of whatever the operator applies."""
POOL_LABEL: Final = "serving.tempo.dev/pool"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"

ROUTER_PORT: Final = 8000
SIDECAR_PORT: Final = 8001
ENGINE_PORT: Final = 8002
"""On loopback, within the pod."""

CONFIG_KEY: Final = "pool.yaml"
REPLICAS_KEY: Final = "replicas.yaml"
KEYS_KEY: Final = "keys.yaml"
"""In the Secret of `router.auth`, unless the pool names another."""
URL_KEY: Final = "url"
"""In the Secret of `history.redis`, unless the pool names another."""

Component = Literal["config", "engine", "router"]


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one pool's objects; a pool's name is short enough for all of them to be DNS labels."""

    pool: str
    namespace: str

    @property
    def config(self) -> str:
        """ConfigMap."""
        return f"{self.pool}-config"

    @property
    def engines(self) -> str:
        """StatefulSet, its headless Service, ServiceAccount, PodDisruptionBudget and NetworkPolicy."""
        return f"{self.pool}-engine"

    @property
    def router(self) -> str:
        """Deployment, Service, ServiceAccount, PodDisruptionBudget and NetworkPolicy."""
        return f"{self.pool}-router"

    def engine_pod(self, ordinal: int) -> str:
        """One engine's pod; also what the router calls that replica."""
        return f"{self.engines}-{ordinal}"

    def sidecar_url(self, ordinal: int) -> str:
        """Where the sidecar of one engine listens."""
        return f"http://{self.engine_pod(ordinal)}.{self.engines}.{self.namespace}.svc:{SIDECAR_PORT}"

    def router_url(self, router: Mapping[str, Any]) -> str:
        """Where clients in the cluster connect; `router` is as in the pool's manifest."""
        scheme, usual = ("https", 443) if router.get("tls") else ("http", 80)
        port = (router.get("service") or {}).get("port", 80)
        return f"{scheme}://{self.router}.{self.namespace}.svc{'' if port == usual else f':{port}'}"


def router_port(*, tls: bool) -> str:
    """What the port is called at which routers listen; by it the operator knows how to ask a pod."""
    return "https" if tls else "http"


def selector(pool: str, component: Component) -> dict[str, str]:
    """The labels by which the pods of a component are found; a workload's can't change once it is there."""
    return {POOL_LABEL: pool, COMPONENT_LABEL: component}


def labels(pool: str, component: Component) -> dict[str, str]:
    """All labels of an object or pod."""
    return {
        "app.kubernetes.io/name": "tempo",
        "app.kubernetes.io/instance": pool,
        "app.kubernetes.io/part-of": "tempo",
        "app.kubernetes.io/managed-by": MANAGER,
        **selector(pool, component),
    }
