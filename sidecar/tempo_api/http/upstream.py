"""The connections to upstreams: opened when needed, kept for the next request, closed when idle or silent."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Final, Self

from tempo_api.http.connection import Connection, StaleError, UpstreamError
from tempo_api.http.messages import Origin, origin_of, request_head
from tempo_api.openai import Ending

CONNECT_TIMEOUT_S: Final = 2.0
READ_TIMEOUT_S: Final = 600.0
"""A queued request that does not stream sends nothing for long."""
IDLE_S: Final = 2.0
"""Less than any upstream's own keep-alive time (uvicorn's is 5 s), so that few close while a request is sent."""
MOST_IDLE: Final = 1024
"""Connections kept to one upstream."""


class Connections:
    """A pool for plain http. Use it as a context manager, for one event loop.

    How many connections are open is bounded by the requests that its users let in, and by `MOST_IDLE`. One timer
    serves all timeouts, so that a request sets none: they are checked four times in the shortest of them.

    Args:
        connect_timeout_s: for a new connection.
        read_timeout_s: the longest silence during an answer, its head included.
        idle_s: how long a connection is kept without use.

    """

    def __init__(
        self,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        idle_s: float = IDLE_S,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._idle_s = idle_s
        self._busy: dict[Connection, Origin] = {}
        self._idle: dict[Origin, deque[Connection]] = {}
        self._loop: asyncio.AbstractEventLoop
        self._sweeping: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        """Start the timer."""
        self._loop = asyncio.get_running_loop()
        self._sweeping = asyncio.create_task(self._sweep())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        self._sweeping.cancel()
        await asyncio.gather(self._sweeping, return_exceptions=True)
        for connection in self._busy:
            connection.fail(Ending.SHUTTING_DOWN, "The server is shutting down.")
        while self._idle:
            for connection in self._idle.popitem()[1]:
                connection.close()

    async def send(
        self, base_url: str, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Connection:
        """Send a request and wait for the head of its answer; the caller owes a `release`.

        Where a connection that had been kept turns out to be closed, another is opened once.

        Args:
            base_url: such as `http://127.0.0.1:8000`.
            method: such as `POST`.
            target: path and query, encoded; comes after the URL's own path.
            headers: see `request_head`.
            body: may be empty.

        Raises:
            UpstreamError: it can't be reached, is silent for too long, or its answer breaks off or is malformed.
            ValueError: for a URL or a header that can't be sent.

        """
        origin = origin_of(base_url)
        head = request_head(method, origin.prefix + target, origin.authority, headers, len(body))
        if kept := self._kept(origin):
            try:
                return await self._exchange(kept, origin, method, head, body)
            except StaleError:
                pass
        return await self._exchange(await self._connect(origin), origin, method, head, body)

    def release(self, connection: Connection) -> None:
        """The answer is read, or no longer wanted."""
        origin = self._busy.pop(connection)
        if connection.end():
            idle = self._idle.setdefault(origin, deque())
            idle.append(connection)
            if len(idle) > MOST_IDLE:
                idle.popleft().close()

    def lost(self, base_url: str) -> None:
        """Nothing more will come from this upstream: break off what it has not finished."""
        origin = origin_of(base_url)
        for connection, to in self._busy.items():
            if to == origin:
                connection.fail(Ending.UPSTREAM_FAILED, "The upstream can't be reached any more.")
        for connection in self._idle.pop(origin, ()):
            connection.close()

    async def _exchange(
        self, connection: Connection, origin: Origin, method: str, head: bytes, body: bytes
    ) -> Connection:
        self._busy[connection] = origin
        try:
            await connection.send(head, body, headless=method == "HEAD")
        except BaseException:  # cancelled, too
            self.release(connection)
            raise
        return connection

    def _kept(self, origin: Origin) -> Connection | None:
        """The one used last, for it is the least likely to be closed soon."""
        idle, oldest_s = self._idle.get(origin), self._loop.time() - self._idle_s
        while idle:
            connection = idle.pop()
            if connection.open and connection.heard_s > oldest_s:
                return connection
            connection.close()
        return None

    async def _connect(self, origin: Origin) -> Connection:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await self._loop.create_connection(Connection, origin.host, origin.port)
        except OSError as error:
            raise UpstreamError(Ending.UPSTREAM_FAILED, "The upstream can't be reached.") from error
        return connection

    async def _sweep(self) -> None:
        interval_s = min(self._read_timeout_s, self._idle_s) / 4
        while True:
            await asyncio.sleep(interval_s)
            self._close_silent(self._loop.time() - self._read_timeout_s)
            self._close_idle(self._loop.time() - self._idle_s)

    def _close_silent(self, since_s: float) -> None:
        for connection in self._busy:
            if connection.heard_s < since_s and not connection.paused:
                connection.fail(Ending.UPSTREAM_TIMEOUT, "The upstream sent nothing for too long.")

    def _close_idle(self, since_s: float) -> None:
        for origin, idle in list(self._idle.items()):
            while idle and (idle[0].heard_s < since_s or not idle[0].open):
                idle.popleft().close()
            if not idle:
                del self._idle[origin]
