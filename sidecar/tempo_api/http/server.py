"""The shell that router and sidecar share: probes, metrics, errors in OpenAI's shape, limits and a graceful end."""

import asyncio
import gc
import logging
import signal
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import click
import orjson
import uvloop
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from tempo_api.http.runner import Runner
from tempo_api.openai import APIError, Ending, error_body
from tempo_api.state import STATE_PATH
from tempo_api.wire import DROPPED_HEADER

log = logging.getLogger(__name__)

Body = TypeVar("Body", bytes, bytearray)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics", "/engine/health", "/engine/metrics", STATE_PATH})
"""Paths that are always answered, however full or far gone the server is."""
BODY_TIMEOUT_S: Final = 60.0
_YOUNG: Final = 25_000
"""New objects after which garbage is looked for. With Python's own 700 all that hundreds of requests in flight hold
would be looked through again and again, and for little: reference counts free what most requests leave."""


class Lifecycle:
    """How busy an app is, and whether it still takes requests."""

    def __init__(self, max_in_flight: int) -> None:
        self.in_flight = 0
        self.draining = False
        self.idle = asyncio.Event()
        self.idle.set()
        self.max_in_flight = max_in_flight

    def enter(self) -> None:
        """Count a request in.

        Raises:
            APIError: `SHUTTING_DOWN` or `SATURATED`.

        """
        if self.draining:
            raise APIError(Ending.SHUTTING_DOWN, "The server is shutting down.", retry_after_s=1.0)
        if self.in_flight >= self.max_in_flight:
            message = f"The server has {self.in_flight} requests in flight, as many as it takes."
            raise APIError(Ending.SATURATED, message, retry_after_s=1.0)
        self.in_flight += 1
        self.idle.clear()

    def leave(self) -> None:
        """Count a request out."""
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()


LIFECYCLE: Final = web.AppKey("lifecycle", Lifecycle)


def make_app(
    *,
    ready: Callable[[], Awaitable[dict[str, Any]]],
    registry: CollectorRegistry,
    on_error: Callable[[web.Request, Ending], None],
    max_body_bytes: int,
    max_in_flight: int,
) -> web.Application:
    """An app with probes, metrics and limits; the caller adds its routes.

    Args:
        ready: what `/readyz` says; `ready: true` in it makes the status 200, as long as the app is not draining.
        registry: the app's own metrics.
        on_error: told of every request that is answered with an error by this module; it counts them.
        max_body_bytes: a larger body is refused with 413.
        max_in_flight: one request more is refused with 429.

    """
    lifecycle = Lifecycle(max_in_flight)
    app = web.Application(middlewares=[_guard(lifecycle, on_error)], client_max_size=max_body_bytes)
    app[LIFECYCLE] = lifecycle

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        state = await ready()
        state["ready"] = bool(state["ready"]) and not lifecycle.draining
        body = orjson.dumps(state)
        return web.Response(body=body, status=200 if state["ready"] else 503, content_type="application/json")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


async def read_body(request: web.Request, limit: int) -> bytes:
    """The body, of at most `limit` bytes.

    Raises:
        APIError: `BODY_TOO_LARGE`; `CLIENT_CLOSED` if it does not arrive in time.

    """
    content = request.content
    if content.is_eof():  # it came with the head, as most do, and needs no timer
        return _of_size(content.read_nowait(), limit)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in content.iter_any():
                body += piece
                _of_size(body, limit)
    except TimeoutError as error:
        raise APIError(Ending.CLIENT_CLOSED, f"The body did not arrive within {BODY_TIMEOUT_S:g} s.") from error
    return bytes(body)


def _of_size(body: Body, limit: int) -> Body:
    if len(body) > limit:
        raise APIError(Ending.BODY_TOO_LARGE, f"The body is larger than {limit} bytes.")
    return body


def error_response(error: APIError) -> web.Response:
    """`error` as an answer."""
    headers = error.headers
    if error.ending.dropped:
        headers[DROPPED_HEADER] = error.ending.dropped
    if error.ending is Ending.SHUTTING_DOWN:
        headers["Connection"] = "close"
    return web.Response(
        body=error_body(error), status=error.ending.status, headers=headers, content_type="application/json"
    )


def _guard(lifecycle: Lifecycle, on_error: Callable[[web.Request, Ending], None]) -> Any:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path in PROBES:
                return await handler(request)
            lifecycle.enter()
            try:
                return await handler(request)
            finally:
                lifecycle.leave()
        except Exception as error:  # the one place where whatever goes wrong becomes an answer
            translated = _translate(request, error)
        on_error(request, translated.ending)
        return error_response(translated)

    return middleware


def _translate(request: web.Request, error: Exception) -> APIError:
    """What went wrong, as a caller may see it."""
    param = None
    match error:
        case APIError():
            return error
        case web.HTTPRequestEntityTooLarge():
            ending, message = Ending.BODY_TOO_LARGE, f"The body is larger than {request.client_max_size} bytes."
        case web.HTTPNotFound():
            ending, message = Ending.UNKNOWN_PATH, f"Unknown request URL: {request.method} {request.path}."
        case web.HTTPMethodNotAllowed():
            ending, message = Ending.METHOD_NOT_ALLOWED, f"{request.path} does not take {request.method}."
        case web.RequestPayloadError():
            ending, message = Ending.INVALID_VALUE, "The body is not encoded as its headers say."
            param = "content-encoding"
        case ConnectionError():
            ending, message = Ending.CLIENT_CLOSED, "The client is gone."
        case _:
            log.error("%s %s failed", request.method, request.path, exc_info=error)
            ending, message = Ending.INTERNAL, "The server had an error while processing the request."
    return APIError(ending, message, param=param)


def run_server(
    app: web.Application,
    host: str,
    port: int,
    *,
    name: str,
    drain_s: float,
    ssl_context: ssl.SSLContext | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then let requests in flight finish for at most `drain_s` seconds.

    While draining, `/readyz` says 503 and new requests are refused with 503. A second signal ends the wait.
    With an `ssl_context` only TLS is spoken.

    Raises:
        click.ClickException: if the port can't be had; click makes it one line and exit code 1.

    """
    uvloop.run(_serve(app, host, port, name, drain_s, ssl_context))


async def _serve(
    app: web.Application, host: str, port: int, name: str, drain_s: float, ssl_context: ssl.SSLContext | None
) -> None:
    signals: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, None)
    # A client that hangs up must cancel its handler, or the engine goes on generating for nobody.
    runner = Runner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, backlog=1024, ssl_context=ssl_context).start()
        except OSError as error:
            raise click.ClickException(f"can't listen on {host}:{port} ({error.strerror}); choose a --port") from error
        scheme = "https" if ssl_context else "http"
        gc.collect()
        gc.freeze()  # modules and the app stay; to look through them again and again makes pauses
        gc.set_threshold(_YOUNG)
        click.echo(f"{name} ready on {scheme}://{host}:{runner.addresses[0][1]}")
        await signals.get()
        await drain(app[LIFECYCLE], drain_s, signals)
    finally:
        await runner.cleanup()


async def drain(lifecycle: Lifecycle, drain_s: float, hurry: asyncio.Queue[None]) -> None:
    """Refuse new requests; wait until none is left, `drain_s` seconds are over, or `hurry` has something."""
    lifecycle.draining = True
    log.info("draining: %d requests in flight, at most %g s", lifecycle.in_flight, drain_s)
    waits = [asyncio.ensure_future(lifecycle.idle.wait()), asyncio.ensure_future(hurry.get())]
    await asyncio.wait(waits, timeout=drain_s, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
