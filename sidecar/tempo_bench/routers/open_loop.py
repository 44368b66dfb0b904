"""Clients that ask at a steady rate whatever comes of it, and what each of them saw."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import Final

import aiohttp
import orjson

from tempo_api.wire import REPLICA_HEADER
from tempo_bench.routers.backend import stream_tag

RATE: Final = 30.0
"""Requests a second: whole answers and streams in turn."""
PATIENCE_S: Final = 60.0
"""A client that has waited for so long in all has waited in vain."""
_CHUNKS, _GAP_MS = 10, 50


class End(Enum):
    """How a request ended, for its client."""

    WHOLE = "whole"
    REFUSED = "refused"
    """An error before the first byte of an answer."""
    BROKEN = "broken"
    """It broke off, and the client was told: an error event ends a stream, hanging up a whole answer."""
    TRUNCATED = "truncated"
    """A stream that stopped without a word."""
    HUNG = "hung"


@dataclass(slots=True)
class Seen:
    """What one client saw; times are seconds of the event loop's clock."""

    sent_s: float
    stream: bool
    replica: str = ""
    end: End = End.HUNG
    first_s: float | None = None
    """From being sent to the first byte of the answer's body."""
    silence_s: float = 0.0
    """The longest that nothing came."""
    ended_s: float = 0.0
    status: int = 0

    @property
    def counts_s(self) -> float:
        """When it tells of how replicas fare: at its end, unless that never came."""
        return self.sent_s if self.end is End.HUNG else self.ended_s


class Clients:
    """All of them.

    Args:
        url: of the router.
        model: to ask for.

    """

    def __init__(self, url: str, model: str) -> None:
        self.url = url
        self.seen: list[Seen] = []
        self._model = model

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Ask at `RATE` for as long as the block lasts; then every request is followed to its end."""
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        asking: list[asyncio.Task[None]] = []
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            sending = asyncio.create_task(self._send(session, asking))
            try:
                yield
            finally:
                sending.cancel()
                await asyncio.gather(sending, *asking, return_exceptions=True)

    async def _send(self, session: aiohttp.ClientSession, asking: list[asyncio.Task[None]]) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number in count():
            await asyncio.sleep(began_s + number / RATE - loop.time())
            seen = Seen(loop.time(), stream=bool(number % 2))
            self.seen.append(seen)
            asking.append(asyncio.create_task(self._ask(session, seen)))

    async def _ask(self, session: aiohttp.ClientSession, seen: Seen) -> None:
        prompt = stream_tag(_CHUNKS, _GAP_MS) if seen.stream else "Hello."
        body = {"model": self._model, "messages": [{"role": "user", "content": prompt}], "stream": seen.stream}
        clock = asyncio.get_running_loop().time
        received, heard_s = bytearray(), seen.sent_s
        try:
            async with session.post(f"{self.url}/v1/chat/completions", json=body) as answer:
                seen.status, seen.replica = answer.status, answer.headers.get(REPLICA_HEADER, "")
                async for piece in answer.content.iter_any():
                    now_s = clock()
                    if seen.first_s is None:
                        seen.first_s = now_s - seen.sent_s
                    seen.silence_s, heard_s = max(seen.silence_s, now_s - heard_s), now_s
                    received += piece
            seen.end = end_of(seen, bytes(received))
        except TimeoutError:
            seen.end = End.HUNG
        except (aiohttp.ClientError, OSError):
            seen.end = End.REFUSED if seen.first_s is None else End.BROKEN
        seen.ended_s = clock()
        seen.silence_s = max(seen.silence_s, seen.ended_s - heard_s)


def end_of(seen: Seen, received: bytes) -> End:
    """How an answer ended whose connection did not break."""
    if seen.status != 200:
        return End.REFUSED
    if not seen.stream:
        return End.WHOLE if _has_text(received) else End.BROKEN
    if not received.endswith(b"data: [DONE]\n\n"):
        return End.TRUNCATED
    if b'"error"' in received:
        return End.BROKEN
    return End.WHOLE if received.count(b'"content"') == _CHUNKS and b'"stop"' in received else End.TRUNCATED


def _has_text(received: bytes) -> bool:
    try:
        return bool(orjson.loads(received)["choices"][0]["message"]["content"])
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return False
