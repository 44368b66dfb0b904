"""The test API server with what Helm asks for besides: more kinds, a version, and that the server checks fields."""

from aiohttp import web
from kmock import resource

from support.k8s.api import FakeKubernetes
from tempo_operator.kinds import Kind

RBAC = "rbac.authorization.k8s.io/v1"
KINDS = (
    Kind(RBAC, "Role", "roles"),
    Kind(RBAC, "RoleBinding", "rolebindings"),
    Kind(RBAC, "ClusterRole", "clusterroles", namespaced=False),
    Kind(RBAC, "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
)


class HelmsKubernetes(FakeKubernetes):
    """Knows no schemas either: it accepts whatever the chart's other tests have held to Kubernetes' own."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for kind in KINDS:
            self.resources[resource(kind.group, kind.version, kind.plural)] = {
                "kind": kind.name,
                "namespaced": kind.namespaced,
                "verbs": {"get", "list", "watch", "create", "update", "patch", "delete"},
                "subresources": set(),
            }

    async def _handle(self, request):
        path = request.url.path
        if path == "/version":
            return web.json_response({"major": "1", "minor": "36", "gitVersion": "v1.36.0"})
        if path.startswith("/openapi/v3"):
            return web.json_response(self._openapi(path.removeprefix("/openapi/v3").strip("/")))
        if path == "/api/v1":
            return web.json_response(self._core())
        return await super()._handle(request)

    def _core(self) -> dict:
        """The core group's kinds; kmock calls their version /v1, which Helm does not know."""
        kinds = {known: info for known, info in self.resources.items() if not known.group}
        resources = [
            {
                "name": known.plural,
                "singularName": info.kind.lower(),
                "kind": info.kind,
                "namespaced": info.namespaced,
                "verbs": sorted(info.verbs),
            }
            for known, info in kinds.items()
        ]
        return {"kind": "APIResourceList", "groupVersion": "v1", "resources": resources}

    def _openapi(self, root: str) -> dict:
        """The index, or one group's operations: each says that the server validates fields, so that Helm need not."""
        if not root:
            roots = {self._root(known) for known in self.resources}
            return {"paths": {found: {"serverRelativeURL": f"/openapi/v3/{found}"} for found in roots}}
        paths = {
            f"/{root}/{known.plural}/{{name}}": {
                "patch": {
                    "parameters": [{"name": "fieldValidation", "in": "query"}],
                    "responses": {},
                    "x-kubernetes-group-version-kind": {
                        "group": known.group,
                        "version": known.version,
                        "kind": self.resources[known].kind,
                    },
                }
            }
            for known in self.resources
            if self._root(known) == root
        }
        return {"openapi": "3.0.0", "info": {"title": "test", "version": "1"}, "paths": paths}

    @staticmethod
    def _root(known) -> str:
        return f"apis/{known.group}/{known.version}" if known.group else f"api/{known.version}"
