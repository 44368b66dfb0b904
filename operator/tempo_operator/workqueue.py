"""Keys that are to be looked at: each at most once at a time, later again where it failed."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from tempo_operator.kube import KubeError, NotLeadingError

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

_FIRST_S: Final = 0.5
_LONGEST_S: Final = 60.0


def backoff_s(failures: int, asked_for_s: float | None, spread: float) -> float:
    """How long to wait after so many failures in a row, never less than the server asked for.

    `spread`, from 0 to 1, keeps those that failed together from coming back together.
    """
    own_s: float = min(_FIRST_S * 2.0 ** min(failures - 1, 10), _LONGEST_S) * (0.75 + 0.5 * spread)
    return max(own_s, asked_for_s or 0.0)


class WorkQueue(Generic[Key]):
    """Level-triggered: what happens to a key while it waits or is worked at makes one more look, not several.

    Args:
        work: looks at one key.
        settle_s: how long a key waits before it is looked at, so that a burst of events makes one look.

    """

    def __init__(self, work: Callable[[Key], Awaitable[None]], settle_s: float = 0.02) -> None:
        self._work = work
        self._settle_s = settle_s
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: dict[Key, asyncio.TimerHandle] = {}
        self._queued: set[Key] = set()
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._not_before_s: dict[Key, float] = {}  # the server asked for it; the loop's clock

    def add(self, key: Key) -> None:
        """Have the key looked at soon."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._later(key, self._settle_s)

    def add_after(self, key: Key, delay_s: float) -> None:
        """Have the key looked at in `delay_s` seconds, or before."""
        if key not in self._queued:
            self._later(key, delay_s)

    async def run(self, workers: int) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._worker())
        finally:
            for handle in self._waiting.values():
                handle.cancel()

    def _later(self, key: Key, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        due_s = max(loop.time() + delay_s, self._not_before_s.get(key, 0.0))
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.when() <= due_s:
            return
        if waiting is not None:
            waiting.cancel()
        self._waiting[key] = loop.call_at(due_s, self._due, key)

    def _due(self, key: Key) -> None:
        del self._waiting[key]
        if key in self._busy:
            self._again.add(key)
        else:
            self._queued.add(key)
            self._ready.put_nowait(key)

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            self._queued.discard(key)
            self._busy.add(key)
            try:
                await self._work(key)
                self._failures.pop(key, None)
                self._not_before_s.pop(key, None)
            except NotLeadingError:
                pass  # the election is about to cancel us
            except KubeError as error:
                self._failed(key, error, error.retry_after_s)
            except Exception as error:  # one key's trouble must not end the others' work
                log.exception("%s: unexpected error", key)
                self._failed(key, error, None)
            finally:
                self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    def _failed(self, key: Key, error: Exception, asked_for_s: float | None) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay_s = backoff_s(failures, asked_for_s, random.random())  # noqa: S311  # spreads, hides nothing
        if asked_for_s:
            self._not_before_s[key] = asyncio.get_running_loop().time() + delay_s
        log.warning("%s: %s; trying again in %.1f s", key, error, delay_s)
        self._later(key, delay_s)
