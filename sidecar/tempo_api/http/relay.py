"""Pass a request on to an upstream, and its answer back, byte for byte."""

import asyncio
from collections.abc import Container, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tempo_api.openai import APIError, Ending, error_event

CONNECT_TIMEOUT_S: Final = 2.0
READ_TIMEOUT_S: Final = 600.0
"""A queued request that does not stream sends nothing for long."""
_STALL_S: Final = 60.0
"""A client that takes no bytes for this long counts as gone."""
_SURELY_TAKEN: Final = 32 << 10
"""Bytes that aiohttp and the transport buffer (64 KiB each) without waiting for the client."""
_IDLE_CONNECTION_S: Final = 2.0
"""Less than any upstream's own keep-alive time (uvicorn's is 5 s), so that none closes while a request is sent."""

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Made anew for the upstream; without accept-encoding its answer is plain, so that it can be metered.
_OWN: Final = frozenset({"host", "content-length", "expect", "accept-encoding"})


class UpstreamError(APIError):
    """The upstream failed before the client got a byte, so the request may be tried elsewhere.

    `status` is the upstream's own, if it answered with one that the caller of `relay` refuses.
    """

    def __init__(self, ending: Ending, message: str, status: int | None = None) -> None:
        super().__init__(ending, message)
        self.status = status


class Tap(Protocol):
    """Sees an answer as it passes; what it returns is what goes on to the client."""

    def begin(self, status: int, content_type: str) -> None:
        """The answer's head has come."""

    def feed(self, chunk: bytes) -> bytes:
        """The next piece of its body has come."""
        ...

    def close(self) -> bytes:
        """The body ended well; returns what was held back."""
        ...


class Relayed(NamedTuple):
    """An answer that reached the client, at least in part."""

    response: web.StreamResponse
    ending: Ending
    """`COMPLETED`, `UPSTREAM_REFUSED` (passed on as it was), or how it broke off."""


def new_session(*, read_timeout_s: float = READ_TIMEOUT_S) -> aiohttp.ClientSession:
    """A session for upstreams. Create it where a loop runs; how many connections it opens is the app's limit."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_CONNECTION_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=read_timeout_s),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    )


def forwarded_headers(headers: Mapping[str, str], drop: Iterable[str] = ()) -> CIMultiDict[str]:
    """A request's or an answer's headers without those that belong to one connection, and without `drop`."""
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    gone = _HOP_BY_HOP.union(named, drop)
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in gone)


async def relay(
    request: web.Request,
    session: aiohttp.ClientSession,
    base_url: str,
    *,
    body: bytes,
    headers: Mapping[str, str],
    tap: Tap | None = None,
    refuse: Container[int] = (),
    answer_headers: Mapping[str, str] | None = None,
) -> Relayed:
    """Send `request` with `body` to the same path under `base_url`, and stream the answer to the client.

    Nothing is sent to the client before the first byte of the answer's body, so that a failure until then can be
    retried elsewhere. After it, a broken event stream is ended with an error event, and a broken answer of another
    kind by closing the connection. Cancelling closes the upstream's connection.

    Args:
        request: whose method, path and query are used.
        session: from `new_session`.
        base_url: such as `http://127.0.0.1:8000`.
        body: what to send.
        headers: the request's, as `forwarded_headers` gives them, changed as the caller likes.
        tap: sees the answer as it passes; must not raise.
        refuse: upstream statuses that count as failures.
        answer_headers: to be set on the answer, in place of its own.

    Raises:
        UpstreamError: before the first byte.

    """
    url = URL(base_url.rstrip("/") + request.rel_url.raw_path_qs, encoded=True)
    sent = {name: value for name, value in headers.items() if name.lower() not in _OWN}
    try:
        async with session.request(
            request.method, url, data=body or None, headers=sent, allow_redirects=False
        ) as answer:
            if answer.status in refuse:
                raise UpstreamError(Ending.UPSTREAM_FAILED, f"The upstream answered {answer.status}.", answer.status)
            if tap:
                tap.begin(answer.status, answer.content_type)
            first = await answer.content.readany()
            return await _pump(request, answer, first, tap, answer_headers or {})
    except (aiohttp.ClientError, OSError) as error:
        raise _translate(error) from error


class _Answer(web.StreamResponse):
    """Its head goes out with the first chunk, in one system call; what aiohttp itself does for whole answers."""

    _send_headers_immediately = False


async def _pump(
    request: web.Request, answer: aiohttp.ClientResponse, chunk: bytes, tap: Tap | None, extra: Mapping[str, str]
) -> Relayed:
    """Send the answer's head, its first chunk and the rest; every failure from here on is an ending, not an error."""
    streams = answer.content_type == "text/event-stream"
    headers = forwarded_headers(answer.headers, ("content-length",) if streams else ())
    headers.update(extra)
    response = _Answer(status=answer.status, reason=answer.reason, headers=headers)
    ending = Ending.COMPLETED if answer.status < 400 else Ending.UPSTREAM_REFUSED
    try:
        await response.prepare(request)
        try:
            while chunk:
                await _send(request, response, tap.feed(chunk) if tap else chunk)
                chunk = await _read(answer)
        except UpstreamError as error:
            ending = error.ending
            await _break_off(request, response, error_event(error) if streams else b"")
        else:
            await _send(request, response, tap.close() if tap else b"")
        await response.write_eof()
    except OSError:  # the client's side: hung up, or stalled
        ending = Ending.CLIENT_CLOSED if ending is Ending.COMPLETED else ending
    return Relayed(response, ending)


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    try:
        return await answer.content.readany()
    except (aiohttp.ClientError, OSError) as error:
        raise _translate(error) from error


async def _send(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    if not data:
        return
    transport = request.transport
    if transport and transport.get_write_buffer_size() + len(data) <= _SURELY_TAKEN:
        await response.write(data)  # the usual case: nothing to wait for, so no timer to set
        return
    async with asyncio.timeout(_STALL_S):
        await response.write(data)


async def _break_off(request: web.Request, response: web.StreamResponse, event: bytes) -> None:
    """End an answer that broke: with `event`, or by hanging up, for then only that tells the client."""
    if event:
        await _send(request, response, event)
    elif request.transport:
        request.transport.abort()


def _translate(error: aiohttp.ClientError | OSError) -> UpstreamError:
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return UpstreamError(Ending.UPSTREAM_FAILED, "The upstream can't be reached.")
    if isinstance(error, TimeoutError):
        return UpstreamError(Ending.UPSTREAM_TIMEOUT, "The upstream sent nothing for too long.")
    return UpstreamError(Ending.UPSTREAM_FAILED, "The upstream closed the connection before its answer was complete.")
