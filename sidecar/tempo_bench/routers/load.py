"""A load generator that hardly costs anything, for it must not be what is measured.

Plain kept-alive connections, each of which sends its next request as soon as the last is answered. A request costs one
write, and a look at the end of the buffer for each read.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, cast

from tempo_bench.routers.backend import TEXT
from tempo_bench.routers.requests import Requests
from tempo_bench.routers.wire import CHUNKED_END, HEAD_END, content_length, problem

HOST: Final = "127.0.0.1"
NO_LIMIT: Final = 1 << 60
_PATIENCE_S: Final = 60.0
"""How long after the end of a turn answers may still come."""
_CONNECT_S: Final = 10.0
_CHUNKED: Final = -1


@dataclass(slots=True)
class Tally:
    """What came of a turn. Times are seconds; `firsts_s` are those to the first byte of an answer's body."""

    latencies_s: list[float] = field(default_factory=list)
    firsts_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    elapsed_s: float = 0.0


class Turn:
    """Requests that several connections send, until the time is over or there have been enough."""

    def __init__(self, requests: Requests, seconds: float, most: int) -> None:
        self.requests = requests
        self.tally = Tally()
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._until_s = time.perf_counter() + seconds
        self._left = most

    def take(self) -> bytes | None:
        """The next request to send, or None: no more."""
        if self._left <= 0 or time.perf_counter() >= self._until_s:
            return None
        self._left -= 1
        self.in_flight += 1
        return self.requests.next()

    def failed(self, why: str) -> None:
        """A request that was taken has no good answer."""
        self.tally.errors[why] += 1
        self._settle()

    def answered(self, latency_s: float, first_s: float) -> None:
        """A request that was taken has its answer."""
        self.tally.latencies_s.append(latency_s)
        self.tally.firsts_s.append(first_s)
        self._settle()

    async def wait(self, timeout_s: float) -> None:
        """Wait until nothing is in flight, at most so long."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.in_flight:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            pass

    def _settle(self) -> None:
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()


class Connection(asyncio.Protocol):
    """A kept-alive connection; it sends what its turn has until there is nothing left."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._turn: Turn | None = None
        self._received = bytearray()
        self._body_at = self._length = self._status = 0
        self._sent_s = self._first_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is no subclass of it

    def connection_lost(self, _: Exception | None) -> None:
        """What is in flight won't be answered."""
        self._transport = None
        self._fail("connection lost")

    def start(self, turn: Turn) -> None:
        """Send the turn's next request, and the one after it, and so on."""
        if self._transport is None or (request := turn.take()) is None:
            return
        self._turn = turn
        self._received.clear()
        self._body_at, self._first_s = 0, 0.0
        self._sent_s = time.perf_counter()
        self._transport.write(request)

    def close(self) -> None:
        """Hang up; what is in flight counts as unanswered."""
        self._fail("no answer in time")
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Look whether the answer is complete."""
        received = self._received
        received += data
        if not self._body_at and not self._read_head():
            return
        if not self._first_s and len(received) > self._body_at:
            self._first_s = time.perf_counter() - self._sent_s
        if self._complete():
            self._end()

    def _read_head(self) -> bool:
        end = self._received.find(HEAD_END)
        if end < 0:
            return False
        head = bytes(self._received[:end])
        length = content_length(head)
        self._body_at, self._status = end + len(HEAD_END), int(head[9:12])
        self._length = _CHUNKED if length is None else length
        return True

    def _complete(self) -> bool:
        if self._length == _CHUNKED:
            return self._received.endswith(b"\r\n" + CHUNKED_END)
        return len(self._received) - self._body_at >= self._length

    def _end(self) -> None:
        turn, self._turn = self._turn, None
        if turn is None:
            return
        latency_s = time.perf_counter() - self._sent_s
        wrong = problem(self._status, self._received[self._body_at :], TEXT, turn.requests.chunks)
        if wrong:
            turn.failed(wrong)
        else:
            turn.answered(latency_s, self._first_s)
        self.start(turn)

    def _fail(self, why: str) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.failed(why)


@asynccontextmanager
async def connections(port: int, count: int) -> AsyncIterator[list[Connection]]:
    """So many open connections to this port of this machine.

    Raises:
        OSError: if it can't be reached.

    """
    loop = asyncio.get_running_loop()
    opened: list[Connection] = []
    try:
        async with asyncio.timeout(_CONNECT_S):
            while len(opened) < count:
                opened.append((await loop.create_connection(Connection, HOST, port))[1])
        yield opened
    finally:
        for connection in opened:
            connection.close()


async def send(
    opened: Sequence[Connection], requests: Requests, seconds: float, most: int = NO_LIMIT, ramp_s: float = 0.0
) -> Tally:
    """Send requests for so long, or so many, whichever comes first, and follow each to its end.

    Connections start all at once, or over `ramp_s`.
    """
    turn = Turn(requests, seconds, most)
    began_s = time.perf_counter()
    for connection in opened:
        connection.start(turn)
        if ramp_s:
            await asyncio.sleep(ramp_s / len(opened))
    await turn.wait(seconds + _PATIENCE_S)
    if turn.in_flight:
        for connection in opened:
            connection.close()
    turn.tally.elapsed_s = time.perf_counter() - began_s
    return turn.tally
