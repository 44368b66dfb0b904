"""The kinds of objects that the operator reads or writes, and where the API serves them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

GROUP: Final = "serving.tempo.dev"
VERSION: Final = "v1alpha1"


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource of the API."""

    api_version: str
    name: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """The version within the group."""
        return self.api_version.rpartition("/")[2]

    @property
    def root(self) -> str:
        """Where the API describes the group's version."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The path of one object, or of all of them where `name` is None; `namespace` None: everywhere."""
        parts = [self.root]
        if self.namespaced and namespace is not None:
            parts.append(f"namespaces/{namespace}")
        return "/".join([*parts, self.plural, *(part for part in (name, subresource) if part)])


POOL: Final = Kind(f"{GROUP}/{VERSION}", "TempoPool", "tempopools")
SLO_CLASS: Final = Kind(f"{GROUP}/{VERSION}", "SLOClass", "sloclasses", namespaced=False)
POD: Final = Kind("v1", "Pod", "pods")
EVENT: Final = Kind("v1", "Event", "events")
LEASE: Final = Kind("coordination.k8s.io/v1", "Lease", "leases")
STATEFUL_SET: Final = Kind("apps/v1", "StatefulSet", "statefulsets")
DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")
POD_MONITOR: Final = Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors")

CHILDREN: Final = (
    STATEFUL_SET,
    DEPLOYMENT,
    Kind("v1", "ConfigMap", "configmaps"),
    Kind("v1", "Service", "services"),
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    POD_MONITOR,
)
"""What a pool may be made of. The last needs an API that not every cluster has."""

_BY_NAME: Final[Mapping[tuple[str, str], Kind]] = {
    (kind.api_version, kind.name): kind for kind in (POOL, SLO_CLASS, POD, EVENT, LEASE, *CHILDREN)
}


def kind_of(document: Mapping[str, Any]) -> Kind:
    """The kind of a document.

    Raises:
        KeyError: for one that the operator has nothing to do with.

    """
    return _BY_NAME[document["apiVersion"], document["kind"]]
