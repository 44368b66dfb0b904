"""A client of the Kubernetes API: JSON over one session, a time limit on every request, and no retries.

What fails is tried again by whoever asked, for only they know whether it still matters. kopf's own client is not
public, and the official one is synchronous and weighs more than everything else in the operator together.
"""

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Self

import aiohttp
import kopf

from tempo_operator.kinds import Kind

FIELD_MANAGER: Final = "tempo-operator"
TIMEOUT_S: Final = 8.0
_CONNECTIONS: Final = 32
_LONGEST_TEXT: Final = 300
_FINAL: Final = {400, 403, 404, 405, 422}
_NOT_IN_SCHEMA: Final = "failed to create typed patch object"
"""How an API server says, with status 500, that what is applied does not fit the schema of its kind."""

Document = dict[str, Any]


class KubeError(Exception):
    """A request that did not succeed.

    KubeError
    ├── RefusedError: the server answered, and said no
    └── UnreachableError: there was no answer in time
    """

    retry_after_s: float | None = None
    """How long the server asked to be left alone."""


class RefusedError(KubeError):
    """The server's answer."""

    def __init__(self, status: int, reason: str, message: str, retry_after_s: float | None = None) -> None:
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s
        super().__init__(f"{status} {reason}: {message}")

    @property
    def final(self) -> bool:
        """Whether the same request will be refused until somebody changes something."""
        return self.status in _FINAL or _NOT_IN_SCHEMA in str(self)


class UnreachableError(KubeError):
    """Nobody answered, or what came was no answer."""


class NotLeadingError(Exception):
    """Another operator may be writing by now, so this one must not."""


class Kube:
    """The API, as seen with one set of credentials.

    Args:
        login: finds the credentials; asked again when they have expired.
        may_write: whether this process may change anything just now.

    """

    def __init__(self, login: Callable[[], kopf.ConnectionInfo], may_write: Callable[[], bool]) -> None:
        self._login = login
        self._may_write = may_write
        self._info: kopf.ConnectionInfo
        self._session: aiohttp.ClientSession
        self.requests = 0
        """Sent so far."""
        self.answered_s = time.monotonic()
        """When the server answered last, on the monotonic clock."""

    async def __aenter__(self) -> Self:
        self._info = info = self._login()
        self._session = aiohttp.ClientSession(
            base_url=info.server.rstrip("/") + "/",
            headers={"User-Agent": FIELD_MANAGER},
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=info.as_ssl_context()),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    @property
    def namespace(self) -> str | None:
        """Where the credentials say that this process is at home."""
        return self._info.default_namespace

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Document | None:
        """The object, or None if there is none."""
        return await _or_none(self._ask("GET", kind.path(namespace, name)))

    async def list(self, kind: Kind, namespace: str | None, selector: str = "") -> tuple[list[Document], int]:
        """All objects that carry the labels of `selector`, and the version of the whole cluster that they show."""
        found = await self._ask("GET", kind.path(namespace), params={"labelSelector": selector} if selector else {})
        known = {"apiVersion": kind.api_version, "kind": kind.name}
        return [{**known, **item} for item in found["items"]], int(found["metadata"]["resourceVersion"])

    async def serves(self, kind: Kind) -> bool:
        """Whether the cluster knows this kind."""
        found = await _or_none(self._ask("GET", kind.root))
        return found is not None and any(resource["name"] == kind.plural for resource in found["resources"])

    async def apply(self, kind: Kind, document: Document, subresource: str | None = None) -> Document:
        """Have the fields of `document` as they are there, whoever set them last; the others stay as they are."""
        metadata = document["metadata"]
        path = kind.path(metadata.get("namespace"), metadata["name"], subresource)
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._write("PATCH", path, document, params, "application/apply-patch+yaml")

    async def create(self, kind: Kind, document: Document) -> Document:
        """A new object."""
        return await self._write("POST", kind.path(document["metadata"].get("namespace")), document)

    async def delete(self, kind: Kind, document: Document) -> None:
        """Remove this very object, unless it is gone or another has taken its name."""
        metadata = document["metadata"]
        options = {"preconditions": {"uid": metadata["uid"]}, "propagationPolicy": "Background"}
        with suppress(RefusedError):
            await _or_none(self._write("DELETE", kind.path(metadata.get("namespace"), metadata["name"]), options))

    async def put_lease(self, kind: Kind, document: Document) -> Document:
        """Create or replace a lease, as its `resourceVersion` says: what leading begins with, so it needs no leave."""
        metadata = document["metadata"]
        if "resourceVersion" in metadata:
            return await self._ask("PUT", kind.path(metadata["namespace"], metadata["name"]), document)
        return await self._ask("POST", kind.path(metadata["namespace"]), document)

    async def _write(
        self,
        method: str,
        path: str,
        body: Document,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Document:
        if not self._may_write():
            raise NotLeadingError
        return await self._ask(method, path, body, params, content_type)

    async def _ask(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Document:
        for last in (False, True):
            used = self._info
            try:
                status, headers, text = await self._send(method, path, body, params, content_type)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                problem = str(error) or type(error).__name__
                raise UnreachableError(f"{method} {path}: {problem}") from error
            if status != 401 or last:
                break
            if used is self._info:  # tokens of service accounts are replaced every hour or so
                self._info = self._login()
        self.answered_s = time.monotonic()
        return _read(status, headers, text)

    async def _send(
        self, method: str, path: str, body: Document | None, params: Mapping[str, str] | None, content_type: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        self.requests += 1
        data = None if body is None else json.dumps(body)
        headers = self._info.as_http_headers() | ({"Content-Type": content_type} if data else {})
        async with self._session.request(method, path, data=data, params=params, headers=headers) as answer:
            return answer.status, answer.headers, await answer.read()


def log_in() -> kopf.ConnectionInfo:
    """The credentials of the pod's service account, or else of the kubeconfig.

    Raises:
        kopf.LoginError: if there are neither.

    """
    settings = kopf.OperatorSettings()
    info = kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)
    if info is None:
        raise kopf.LoginError("no cluster: not in a pod, and neither KUBECONFIG nor ~/.kube/config names one")
    return info


async def _or_none(answer: Awaitable[Document]) -> Document | None:
    try:
        return await answer
    except RefusedError as error:
        if error.status == 404:
            return None
        raise


def _read(status: int, headers: Mapping[str, str], text: bytes) -> Document:
    try:
        body = json.loads(text)
    except ValueError:
        body = {"message": text[:_LONGEST_TEXT].decode(errors="replace")}
    if not isinstance(body, dict):
        body = {}
    if status < 400:
        return body
    raise RefusedError(status, body.get("reason", ""), body.get("message", ""), _retry_after(headers))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    try:
        return float(headers["Retry-After"])
    except (KeyError, ValueError):
        return None
