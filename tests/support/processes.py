"""Real processes for tests: started with a mark in their environment, found again by it."""

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

MARK = "TEMPO_TEST_MARK"


class Marked:
    """All processes that were started with this mark in their environment, whatever became of their parents."""

    def __init__(self) -> None:
        self.env = {MARK: uuid.uuid4().hex}

    def alive(self) -> list[psutil.Process]:
        """Those that run now; zombies don't."""
        return [process for process in psutil.process_iter() if self._is_one(process)]

    def _is_one(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return process.pid != os.getpid() and process.environ().get(MARK) == self.env[MARK]
        return False


@contextmanager
def marked() -> Iterator[Marked]:
    """A fresh mark; whatever still carries it in the end is killed."""
    found = Marked()
    try:
        yield found
    finally:
        for process in found.alive():
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)


def wait_until(true: Callable[[], object], within_s: float = 20.0) -> None:
    """Poll until `true()` is; fails after `within_s`."""
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until, f"not within {within_s} s"
        time.sleep(0.02)


async def until(true: Callable[[], object] | Callable[[], Awaitable[object]], within_s: float = 20.0) -> None:
    """The same for coroutines, and for conditions that are coroutines themselves."""
    async with asyncio.timeout(within_s):
        while True:
            answer = true()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(0.05)
