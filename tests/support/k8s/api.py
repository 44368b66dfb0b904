"""A test API server: kmock's discovery and URL parsing, with a memory that behaves (`state`).

It is no Kubernetes: it knows no schemas, CEL rules, RBAC, Tables, or controllers but the garbage collector, and of
defaults those of the built-in kinds that Tempo applies. Tests that need those run on a real control plane only.
"""

import asyncio
import gc
import json
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
from aiohttp import web
from kmock import KubernetesScaffold, resource

from support.k8s.state import Change, Ref, RefusalError, State
from tempo_operator.kinds import CHILDREN, EVENT, LEASE, POD, POOL, SLO_CLASS, Kind

NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
CRD = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)
_BOOKMARK_S = 20.0


@attrs.define(kw_only=True, eq=False)
class FakeKubernetes(KubernetesScaffold):
    """The server; its state is the tests' to reach into."""

    state: State = attrs.field(factory=State, init=False)
    _changed: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _cuts: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for kind in (NAMESPACE, CRD, POOL, SLO_CLASS, POD, EVENT, LEASE, *CHILDREN):  # kopf asks for the first two
            self.resources[resource(kind.group, kind.version, kind.plural)] = {
                "kind": kind.name,
                "namespaced": kind.namespaced,
                "verbs": {"get", "list", "watch", "create", "update", "patch", "delete"},
                "subresources": {"status"},
            }

    def drop_watches(self) -> None:
        """Cut every watch."""
        self._cuts += 1
        self._wake()

    async def _handle(self, request):
        if request.resource is None or request.resource.plural is None:
            return await super()._handle(request)
        ref = Ref(request.resource.group, request.resource.version, request.resource.plural)
        ref = Ref(ref.group, ref.version, ref.plural, request.namespace, request.name)
        try:
            if request.params.get("watch") == "true":
                return await self._watch(request, ref)
            return web.json_response(self._serve(request, ref))
        except RefusalError as refusal:
            return web.json_response(_body(refusal), status=refusal.code)

    def _serve(self, request, ref):
        if request.method.value == "GET":
            return self.state.get(ref) if ref.name else self._list(ref, request.params.get("labelSelector", ""))
        before = self.state.version
        answer = self._write(request, ref)
        if self.state.version != before:
            self._wake()
        return answer

    def _write(self, request, ref):
        body, sub = request.data, request.subresource
        manager = request.params.get("fieldManager") or request.headers.get("User-Agent", "unknown")
        match request.method.value, request.headers.get("Content-Type", ""):
            case "POST", _:
                return self.state.create(ref, body, manager)
            case "PUT", _:
                return self.state.write(ref, sub, body, manager)
            case "DELETE", _:
                return self.state.delete(ref, ((body or {}).get("preconditions") or {}).get("uid"))
            case "PATCH", "application/apply-patch+yaml":
                return self.state.apply(ref, sub, body, manager, force=request.params.get("force") == "true")
            case "PATCH", _:
                return self.state.patch(ref, sub, body, manager)
            case method, _:
                raise RefusalError(405, "MethodNotAllowed", method)

    def _list(self, ref, selector):
        items = [d for r, d in self.state.objects.items() if _within(r, ref) and _selected(d, selector)]
        if "." not in ref.group or ref.group.endswith(".k8s.io"):  # only custom resources say what they are in a list
            items = [{key: value for key, value in d.items() if key not in ("apiVersion", "kind")} for d in items]
        kind = self.resources[resource(ref.group, ref.version, ref.plural)].kind
        version = {"resourceVersion": str(self.state.version)}
        return {
            "apiVersion": f"{ref.group}/{ref.version}".lstrip("/"),
            "kind": f"{kind}List",
            "metadata": version,
            "items": items,
        }

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _watch(self, request, ref):
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.force_close()
        await response.prepare(request._raw_request)
        with suppress(ConnectionError):
            async for event in self._events(ref, request.params):
                await response.write(json.dumps(event).encode() + b"\n")
        return response

    async def _events(self, ref, params) -> AsyncIterator[dict]:
        seen, cuts = int(params.get("resourceVersion") or self.state.version), self._cuts
        while cuts == self._cuts:
            changed = self._changed
            for change in self.state.since(seen):
                seen = change.version
                if _within(change.ref, ref) and (event := _event(change, params.get("labelSelector", ""))):
                    yield event
            try:
                await asyncio.wait_for(changed.wait(), _BOOKMARK_S)
            except TimeoutError:
                seen = self.state.version
                yield {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(seen)}}}


@asynccontextmanager
async def serving(fake: FakeKubernetes, port: int = 0) -> AsyncIterator[int]:
    """Serve it over HTTP; yields the port. It may be served again on the same port afterwards, with all it knows."""
    async with fake:
        runner = web.ServerRunner(web.Server(fake, handler_cancellation=True), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        try:
            yield runner.addresses[0][1]
        finally:
            with warnings.catch_warnings():
                # A connection that was taken up as the server went is nobody's, and would fail some later test.
                warnings.simplefilter("ignore", ResourceWarning)
                await site.stop()  # first, or whoever is cut off comes back at once
                fake.drop_watches()
                await asyncio.sleep(0.05)  # what was taken up becomes a connection, which cleanup ends, on next rounds
                await runner.cleanup()
                await asyncio.sleep(0.05)  # transports close on the loop's next rounds
                gc.collect()


def _event(change: Change, selector: str) -> dict | None:
    """The change as one sees it who selects by labels: what begins to match was added, what ceases to was deleted."""
    was = change.old is not None and _selected(change.old, selector)
    now = change.type != "DELETED" and _selected(change.new, selector)
    if was or now:
        return {"type": "DELETED" if not now else "MODIFIED" if was else "ADDED", "object": change.new}
    return None


def _within(ref: Ref, asked: Ref) -> bool:
    return (ref.group, ref.plural) == (asked.group, asked.plural) and asked.namespace in {None, ref.namespace}


def _selected(document: dict, selector: str) -> bool:
    labels = document["metadata"].get("labels") or {}
    wanted = [part.partition("=") for part in selector.split(",") if part]
    return all(key in labels if not sign else labels.get(key) == value for key, sign, value in wanted)


def _body(refusal: RefusalError) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "code": refusal.code,
        "reason": refusal.reason,
        "message": str(refusal),
    }
