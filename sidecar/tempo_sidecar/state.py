"""`GET /engine/state`: the replica's state, pushed to each router that listens."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from tempo_api.openai import APIError, Ending
from tempo_api.state import HEARTBEAT_S, STATE_TYPE, EngineState, encode_state

LOOK_EVERY_S: Final = 0.02
"""A change is told no later than this; what changes more often is told together."""
_STALL_S: Final = 2.0
"""A listener that takes no bytes for this long is let go."""
_MOST_LISTENERS: Final = 64


class StateStream:
    """The handler. It looks at the state only while somebody listens.

    Args:
        read: the state as it is; called every `LOOK_EVERY_S` for each listener, so it must be cheap.
        refresh: brings up to date what `read` can't wait for; called all the time, so it sets its own pace.

    """

    def __init__(self, read: Callable[[], EngineState], refresh: Callable[[], Awaitable[object]]) -> None:
        self._read = read
        self._refresh = refresh
        self._listeners = 0
        self._closed = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A stream that ends when the listener hangs up or stalls, or after `close`.

        Raises:
            APIError: `SATURATED`, where too many listen.

        """
        if self._listeners >= _MOST_LISTENERS:
            raise APIError(Ending.SATURATED, f"{_MOST_LISTENERS} routers listen already.", retry_after_s=1.0)
        response = web.StreamResponse(headers={"Content-Type": STATE_TYPE, "Cache-Control": "no-store"})
        self._listeners += 1
        refreshing = asyncio.create_task(self._keep_fresh())
        try:
            await response.prepare(request)
            await self._tell(response)
        except OSError:  # hung up or stalled
            pass
        finally:
            refreshing.cancel()
            self._listeners -= 1
        return response

    def close(self) -> None:
        """End all streams."""
        self._closed = True

    async def _tell(self, response: web.StreamResponse) -> None:
        clock = asyncio.get_running_loop().time
        told: EngineState | None = None
        seq, due_s = 0, clock()
        while not self._closed:
            state, now_s = self._read(), clock()
            news = _news(state)
            if news != told or now_s >= due_s:
                told, seq, due_s = news, seq + 1, now_s + HEARTBEAT_S - LOOK_EVERY_S
                async with asyncio.timeout(_STALL_S):
                    await response.write(encode_state(msgspec.structs.replace(state, seq=seq)))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _keep_fresh(self) -> None:
        while True:
            await self._refresh()
            await asyncio.sleep(HEARTBEAT_S)


def _news(state: EngineState) -> EngineState:
    """The part of it that is worth a line: rates drift all the time, and can wait for the heartbeat."""
    return msgspec.structs.replace(state, cache_used=round(state.cache_used, 2), tokens_per_s=0.0, step_time=None)
