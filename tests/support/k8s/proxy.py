"""Stands between an operator and an API server, whichever it is: notes what passes, and makes trouble on demand."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import aiohttp
import kopf
import yaml
from aiohttp import web

_SKIPPED = {"host", "content-length", "transfer-encoding", "connection", "authorization"}


class Proxy:
    """Use it through `proxying()`."""

    def __init__(self, info: kopf.ConnectionInfo, upstream: aiohttp.ClientSession) -> None:
        self.asked: list[tuple[str, str, str]] = []
        """Method, path and sender of every request but watches."""
        self.faults: list[tuple[str, int, dict[str, str], str]] = []
        """Answers in place of the next ones: what they are for, status, headers, message."""
        self.guard: Callable[[str, str, bool], bool] = lambda _method, _path, _watch: True
        """Whether a request may pass; others are forbidden."""
        self.before: Callable[[str, str], Awaitable[None]] | None = None
        """What happens, given method and path, before a request is passed on."""
        self._info, self._upstream = info, upstream
        self._watches: dict[aiohttp.ClientResponse, str] = {}
        self._gone: set[str] = set()
        self._blind = False

    def fail(self, times: int, status: int, matching: str, message: str = "the test asked for it", **headers) -> None:
        """Refuse the next requests whose method and path contain `matching`."""
        self.faults += [(matching, status, headers, message)] * times

    def writes(self, of: str) -> list[tuple[str, str]]:
        """Method and path of those to paths that contain `of`."""
        return [(method, path) for method, path, _ in self.asked if method != "GET" and of in path]

    def drop_watches(self) -> None:
        """Cut every watch, as API servers do to slow watchers."""
        for answer in self._watches:
            answer.close()

    def expire(self) -> None:
        """The same, and whoever takes them up again is told that what it saw last is too long ago."""
        self._gone.update(self._watches.values())
        self.drop_watches()

    @contextmanager
    def blind(self) -> Iterator[None]:
        """Nobody can watch meanwhile, and what happened is not told afterwards."""
        self._blind = True
        self.expire()
        try:
            yield
        finally:
            self._blind = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Pass it on, or make trouble."""
        watch = request.query.get("watch") == "true"
        if not self.guard(request.method, request.path, watch):
            return web.json_response(_status(403, f"forbidden: {request.method} {request.path}"), status=403)
        try:
            return await (self._watch(request) if watch else self._ask(request))
        except aiohttp.ClientError as error:
            return web.json_response(_status(502, f"the API server is away: {error}"), status=502)

    async def _ask(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append((request.method, request.path, request.headers.get("User-Agent", "")))
        for index, (matching, status, headers, message) in enumerate(self.faults):
            if matching in f"{request.method} {request.path}":
                del self.faults[index]
                return web.json_response(_status(status, message), status=status, headers=headers)
        body = await request.read()
        if self.before is not None:
            await self.before(request.method, request.path)
        async with self._pass_on(request, body) as answer:
            return web.Response(status=answer.status, headers=_headers(answer.headers), body=await answer.read())

    async def _watch(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._blind:
            return web.json_response(_status(503, "nobody can watch"), status=503)
        if request.path in self._gone:
            self._gone.discard(request.path)
            event = {"type": "ERROR", "object": _status(410, "too old resource version")}
            return web.Response(text=json.dumps(event) + "\n", content_type="application/json")
        async with self._pass_on(request, b"") as answer:
            response = web.StreamResponse(status=answer.status, headers=_headers(answer.headers))
            response.force_close()
            await response.prepare(request)
            self._watches[answer] = request.path
            try:
                with suppress(ConnectionError, aiohttp.ClientError):
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
            finally:
                del self._watches[answer]
            return response

    def _pass_on(self, request: web.BaseRequest, body: bytes):
        headers = _headers(request.headers) | self._info.as_http_headers()
        return self._upstream.request(request.method, request.path_qs, headers=headers, data=body or None)


@asynccontextmanager
async def proxying(info: kopf.ConnectionInfo, kubeconfig: Path) -> AsyncIterator[Proxy]:
    """Serve one before the API server of `info`; writes the kubeconfig of whoever is to go through it."""
    session = aiohttp.ClientSession(
        base_url=info.server.rstrip("/") + "/",
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        auto_decompress=False,
    )
    async with session:
        proxy = Proxy(info, session)
        runner = web.ServerRunner(web.Server(proxy.handle, handler_cancellation=True), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        _write(kubeconfig, f"http://127.0.0.1:{runner.addresses[0][1]}")
        try:
            yield proxy
        finally:
            proxy.drop_watches()
            await runner.cleanup()


def _write(kubeconfig: Path, server: str) -> None:
    kubeconfig.write_text(yaml.safe_dump(kubeconfig_for(server, {})))


def kubeconfig_for(server: str, user: dict, **cluster: object) -> dict:
    """A kubeconfig of one cluster and one user."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "test", "user": user}],
    }


def _headers(headers) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _SKIPPED}


def _status(code: int, message: str) -> dict:
    return {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code, "message": message}
