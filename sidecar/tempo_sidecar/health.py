"""Whether the engine answers."""

import asyncio
from typing import Final

import aiohttp

_FRESH_S: Final = 1.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=2.0)
_OLD_S: Final = 4.0
"""More than an answer that is asked for once a second can be."""


class EngineHealth:
    """Asks the engine's `/health` at most once a second, however often it is asked itself."""

    def __init__(self, session: aiohttp.ClientSession, engine_url: str) -> None:
        self._session = session
        self._url = f"{engine_url}/health"
        self._lock = asyncio.Lock()
        self._healthy = False
        self._asked_s = float("-inf")

    @property
    def latest(self) -> bool:
        """Its last answer, for who can't wait for one; False where that was too long ago."""
        return self._healthy and asyncio.get_running_loop().time() - self._asked_s < _OLD_S

    async def healthy(self) -> bool:
        """The engine's answer, at most a second old."""
        async with self._lock:
            now_s = asyncio.get_running_loop().time()
            if now_s - self._asked_s >= _FRESH_S:
                self._healthy = await self._ask()
                self._asked_s = now_s
        return self._healthy

    async def _ask(self) -> bool:
        try:
            async with self._session.get(self._url, timeout=_TIMEOUT) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError):
            return False
