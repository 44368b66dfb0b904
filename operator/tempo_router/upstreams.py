"""The replicas as the network shows them: listens to each, and tells the fleet what it hears.

Each sidecar pushes its state over a connection that stays open. Where that is not to be had (an older sidecar, a broken
stream, an ejected replica whose time is over), `/readyz` is asked instead.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping
from typing import Final

import aiohttp
import orjson

from tempo_api.state import LONGEST_LINE, STATE_PATH, STATE_TYPE, EngineState, decode_state
from tempo_router.fleet import Fleet

log = logging.getLogger(__name__)

_BROKEN: Final = (aiohttp.ClientError, OSError)


class Upstreams:
    """Keeps `fleet` informed.

    Args:
        fleet: the bookkeeping, and how patient to be.

    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._replaced = asyncio.Event()
        self._tasks: dict[tuple[str, str], list[asyncio.Task[None]]] = {}

    async def watch(self, session: aiohttp.ClientSession) -> None:
        """Follow every replica until cancelled, each at its own pace: one that hangs delays no other."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._replaced.clear()
                for name, url in self.fleet.urls.items() - self._tasks.keys():
                    self._tasks[name, url] = [
                        group.create_task(self._listen(session, name, url)),
                        group.create_task(self._probe(session, name, url)),
                    ]
                await self._replaced.wait()

    def replace(self, replicas: Mapping[str, str]) -> None:
        """Go on with these replicas: base URL of each by name."""
        self.fleet.replace(replicas)
        for gone in self._tasks.keys() - self.fleet.urls.items():
            for task in self._tasks.pop(gone):
                task.cancel()
        self._replaced.set()

    async def _listen(self, session: aiohttp.ClientSession, name: str, url: str) -> None:
        """Keep a stream open; where there is none to be had, ask again at times."""
        limits = self.fleet.limits
        pause_s, complained = limits.first_pause_s, False
        while True:
            try:
                async for state in self._states(session, f"{url}{STATE_PATH}"):
                    self.fleet.pushed(name, state)
                    pause_s, complained = limits.first_pause_s, False
                self.fleet.missed(name)
            except _BROKEN:
                self.fleet.missed(name)
            except ValueError as error:
                self.fleet.unreadable(name)
                pause_s = limits.ask_again_s
                if not complained:
                    log.info("%s pushes no state (%s); it is probed instead", name, error)
                    complained = True
            # Routers that lost a replica together should not come back together.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  # hides nothing
            pause_s = min(2 * pause_s, limits.longest_pause_s)

    async def _states(self, session: aiohttp.ClientSession, url: str) -> AsyncIterator[EngineState]:
        """States as they come, the latest of those that came together, until the stream ends.

        Raises:
            ValueError: for anything that is no such stream.
            aiohttp.ClientError, OSError: if it breaks, or says nothing for too long.

        """
        limit_s, held = self.fleet.limits.stale_s, b""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limit_s, sock_read=limit_s)
        async with session.get(url, timeout=timeout, allow_redirects=False) as answer:
            if answer.status != 200 or answer.content_type != STATE_TYPE:
                raise ValueError(f"it answers {answer.status}, {answer.content_type}")
            while chunk := await answer.content.readany():
                *whole, held = (held + chunk).split(b"\n")
                if len(held) > LONGEST_LINE:
                    raise ValueError(f"a line is longer than {LONGEST_LINE} bytes")
                if whole:
                    yield decode_state(whole[-1])

    async def _probe(self, session: aiohttp.ClientSession, name: str, url: str) -> None:
        limits = self.fleet.limits
        timeout = aiohttp.ClientTimeout(total=limits.probe_timeout_s)
        while True:
            if self.fleet.wants_probe(name):
                try:
                    async with session.get(f"{url}/readyz", timeout=timeout) as answer:
                        ready = _is_ready(answer.status, await answer.read())
                except _BROKEN:
                    self.fleet.missed(name)
                else:
                    self.fleet.probed(name, ready=ready)
            await asyncio.sleep(limits.probe_every_s)


def _is_ready(status: int, body: bytes) -> bool:
    """Whether that is a sidecar's word that it is ready: some foreign server at the address may say 200 to anything."""
    try:
        state = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return status == 200 and isinstance(state, dict) and state.get("ready") is True
