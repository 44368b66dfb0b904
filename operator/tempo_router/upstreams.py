"""The replicas as the network shows them: probes each, and tells those who wait when one is ready."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import aiohttp
import orjson

from tempo_router.fleet import Fleet

PROBE_INTERVAL_S: Final = 0.5
PROBE_TIMEOUT: Final = aiohttp.ClientTimeout(total=2.0)


class Upstreams:
    """Keeps `fleet` informed; every change of readiness goes through here.

    Args:
        fleet: the bookkeeping.
        clock: seconds.

    """

    def __init__(self, fleet: Fleet, clock: Callable[[], float]) -> None:
        self.fleet = fleet
        self._clock = clock
        self._some_ready = asyncio.Event()
        self._replaced = asyncio.Event()

    async def watch(self, session: aiohttp.ClientSession) -> None:
        """Probe every replica's `/readyz` until cancelled, each at its own pace: one that hangs delays no other."""
        probes: dict[tuple[str, str], asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._replaced.clear()
                wanted = self.fleet.urls.items()
                for gone in probes.keys() - wanted:
                    probes.pop(gone).cancel()
                for name, url in wanted - probes.keys():
                    probes[name, url] = group.create_task(self._watch(session, name, f"{url}/readyz"))
                await self._replaced.wait()

    def replace(self, replicas: Mapping[str, str]) -> None:
        """Go on with these replicas: base URL of each by name."""
        self.fleet.replace(replicas)
        self._replaced.set()
        self._update()

    async def wait_ready(self, timeout_s: float) -> bool:
        """Wait until a replica is ready, at most so long; returns whether one is."""
        if not self._some_ready.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._some_ready.wait()
            except TimeoutError:
                return False
        return True

    def failed(self, name: str) -> None:
        """A request to this replica did not get through."""
        self.fleet.failed(name)
        self._update()

    async def _watch(self, session: aiohttp.ClientSession, name: str, url: str) -> None:
        while True:
            try:
                async with session.get(url, timeout=PROBE_TIMEOUT) as answer:
                    ready = _is_ready(answer.status, await answer.read())
            except (aiohttp.ClientError, OSError):
                self.failed(name)
            else:
                self.fleet.probed(name, self._clock(), ready)
                self._update()
            await asyncio.sleep(PROBE_INTERVAL_S)

    def _update(self) -> None:
        if any(self.fleet.ready.values()):
            self._some_ready.set()
        else:
            self._some_ready.clear()


def _is_ready(status: int, body: bytes) -> bool:
    """Whether that is a sidecar's word that it is ready: some foreign server at the address may say 200 to anything."""
    try:
        state = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return status == 200 and isinstance(state, dict) and state.get("ready") is True
