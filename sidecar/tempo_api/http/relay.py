"""Pass a request on to an upstream, and its answer back, byte for byte."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

import aiohttp
from aiohttp import web

from tempo_api.http.connection import Connection, UpstreamError
from tempo_api.http.messages import answer_head, chunk, forwarded_headers, frame
from tempo_api.http.upstream import CONNECT_TIMEOUT_S, IDLE_S, READ_TIMEOUT_S, Connections
from tempo_api.openai import Ending, error_event

__all__ = ["Connections", "Relayed", "Tap", "UpstreamError", "forwarded_headers", "new_session", "relay"]

_STALL_S: Final = 60.0
"""A client that takes no bytes for this long counts as gone."""


class Tap(Protocol):
    """Sees an answer as it passes; what it returns is what goes on to the client.

    Only a stream of events may be changed: other answers have a length that is told before.
    """

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


def new_session() -> aiohttp.ClientSession:
    """A session for what router and sidecar ask of upstreams themselves; `relay` has `Connections` instead."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S),
    )


async def relay(
    request: web.Request,
    connections: Connections,
    base_url: str,
    *,
    body: bytes,
    headers: Mapping[str, str],
    tap: Tap | None = None,
    refuse: Callable[[int], bool] = lambda _: False,
    answer_headers: Mapping[str, str] | None = None,
) -> Relayed:
    """Send `request` with `body` to the same path under `base_url`, and stream the answer to the client.

    Nothing is sent to the client before the first byte of the answer's body, so that a failure until then can be
    retried elsewhere. After it, a broken event stream is ended with an error event, and a broken answer of another
    kind by closing the connection. Cancelling closes the upstream's connection.

    Args:
        request: whose method, path and query are used.
        connections: to upstreams.
        base_url: such as `http://127.0.0.1:8000`.
        body: what to send.
        headers: the request's, as `forwarded_headers` gives them, changed as the caller likes.
        tap: sees the answer as it passes; must not raise.
        refuse: whether an answer of this status, unlike others, counts as a failure and is not passed on.
        answer_headers: to be set on the answer, in place of its own.

    Raises:
        UpstreamError: before the first byte.

    """
    answer = await connections.send(base_url, request.method, request.rel_url.raw_path_qs, headers, body)
    try:
        if refuse(answer.status):
            raise UpstreamError(Ending.UPSTREAM_FAILED, f"The upstream answered {answer.status}.", answer.status)
        content_type = _content_type(answer)
        if tap:
            tap.begin(answer.status, content_type)
        await answer.body_begun()
        if request.transport is None:
            return Relayed(web.StreamResponse(), Ending.CLIENT_CLOSED)
        return await _Delivery(request, request.transport, answer, content_type, tap, answer_headers or {}).run()
    finally:
        connections.release(answer)


def _content_type(answer: Connection) -> str:
    value, _, _ = answer.named.get(b"content-type", b"").partition(b";")
    return value.strip().lower().decode("latin-1") or "application/octet-stream"


class _Sent(web.StreamResponse):
    """An answer that went to the client's transport past aiohttp, to which nothing is left to do."""

    prepared = True
    keep_alive = True

    async def prepare(self, _: web.BaseRequest) -> None:
        return None

    async def write_eof(self, _: bytes = b"") -> None:
        return None


class _Delivery:
    """One answer on its way to the client; the first byte of its body has come.

    It writes to the client's transport itself: a piece that arrives is one write, the head goes with the first of
    them and the end with the last. Every failure from here on is an ending, not an error.
    """

    def __init__(
        self,
        request: web.Request,
        transport: asyncio.Transport,
        answer: Connection,
        content_type: str,
        tap: Tap | None,
        extra: Mapping[str, str],
    ) -> None:
        self._writer = request.writer
        self._client = request.protocol
        self._transport = transport
        self._answer = answer
        self._tap = tap
        self._streams = content_type == "text/event-stream"
        framing = frame(
            request.method,
            answer.status,
            answer.named,
            request.version,
            streams=self._streams,
            kept=request.keep_alive,
        )
        self._chunked = framing.chunked
        self._head = answer_head(answer.status, answer.reason, answer.fields, framing, extra)
        self._sent = _Sent(status=answer.status, headers=extra)
        self._sent.keep_alive = framing.keep_alive

    async def run(self) -> Relayed:
        """Until the end, whichever."""
        ending = Ending.COMPLETED if self._answer.status < 400 else Ending.UPSTREAM_REFUSED
        try:
            while not await self._answer.pour(self._take):
                await self._drain()
            await self._drain()
        except UpstreamError as error:
            ending = error.ending
            self._break_off(error)
        except OSError:  # the client's side: hung up, or stalled
            self._transport.abort()
            ending = Ending.CLIENT_CLOSED if ending is Ending.COMPLETED else ending
        return Relayed(self._sent, ending)

    def _take(self, piece: bytes, last: bool) -> bool:
        if self._tap:
            if piece:
                piece = self._tap.feed(piece)
            if last:
                piece += self._tap.close()
        self._write(piece, last)
        return not (self._client.writing_paused or self._transport.is_closing())

    def _write(self, data: bytes, last: bool) -> None:
        if self._chunked:
            data = chunk(data, last)
        if self._head and (data or last):
            data, self._head = self._head + data, b""
        if data and not self._transport.is_closing():
            self._transport.write(data)

    async def _drain(self) -> None:
        """Wait until the client has taken enough.

        Raises:
            OSError: if it has not for long, or is gone.

        """
        if self._transport.is_closing():
            raise ConnectionResetError
        if self._client.writing_paused:
            async with asyncio.timeout(_STALL_S):
                await self._writer.drain()

    def _break_off(self, error: UpstreamError) -> None:
        """End an answer that broke: a stream with an event, another by hanging up, for then only that tells."""
        if self._streams:
            self._write(error_event(error), True)
        else:
            self._transport.abort()
