"""Keeps the parts of a pool running: starts them in order, restarts those that end, ends them in reverse order."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiohttp

from tempo_operator.local.display import Display
from tempo_operator.local.errors import UpError
from tempo_operator.local.parts import Part
from tempo_operator.local.process import Guarded, describe

_POLL_S: Final = 0.25
_ANSWER_WITHIN: Final = aiohttp.ClientTimeout(total=5)
_STABLE_S: Final = 60.0
"""A part that ran this long has recovered from whatever ended it before."""
_LONGEST_PAUSE_S: Final = 30.0


def waves(parts: Iterable[Part]) -> list[list[Part]]:
    """The parts in groups: each depends on earlier groups only, and its members can start together.

    Raises:
        ValueError: for a dependency that is missing or circular.

    """
    left, done, order = list(parts), set[str](), list[list[Part]]()
    while left:
        wave = [part for part in left if done.issuperset(part.depends_on)]
        if not wave:
            raise ValueError(f"dependencies that can't be met: {', '.join(part.name for part in left)}")
        order.append(wave)
        done.update(part.name for part in wave)
        left = [part for part in left if part.name not in done]
    return order


def pause_s(failures: int) -> float:
    """How long to wait before a part is started again that has ended `failures` times in a row: 1, 2, 4, ... 30 s."""
    return min(_LONGEST_PAUSE_S, 2.0 ** (failures - 1))


class Supervisor:
    """Runs `parts` with their output in `folder`."""

    def __init__(self, parts: Sequence[Part], folder: Path, display: Display) -> None:
        self._waves = waves(parts)
        self._folder = folder
        self._display = display
        self._running: dict[str, Guarded] = {}

    @property
    def pids(self) -> dict[str, int]:
        """The guard of each part."""
        return {name: guarded.pid for name, guarded in self._running.items()}

    async def start(self) -> None:
        """Start every part, and return when all are ready.

        Raises:
            UpError: where one ends early or takes too long. The others are left for `end`.

        """
        for wave in self._waves:
            try:
                async with asyncio.TaskGroup() as group:
                    for part in wave:
                        group.create_task(self._show_start(part))
            except ExceptionGroup as failed:  # not `except*`, which before Python 3.11.4 wraps what is raised in it
                errors = failed.subgroup(UpError)
                if errors is None:
                    raise
                raise errors.exceptions[0] from None

    async def keep(self) -> None:
        """Restart parts that end, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for wave in self._waves:
                for part in wave:
                    group.create_task(self._keep(part))

    async def end(self) -> None:
        """End every part: those that others depend on last, so that running requests can finish."""
        for wave in reversed(self._waves):
            started = [(self._running[part.name], part) for part in wave if part.name in self._running]
            await asyncio.gather(*(guarded.end(part.end_within_s) for guarded, part in started))

    def end_now(self) -> None:
        """Kill every part."""
        for guarded in self._running.values():
            guarded.end_now()

    async def _show_start(self, part: Part) -> None:
        self._display.begin(part.name)
        await self._start(part)
        self._display.finish(part.name)

    async def _start(self, part: Part) -> None:
        log = self._folder / part.log_name
        guarded = self._running[part.name] = await Guarded.start(part.argv, part.env, log)
        try:
            async with asyncio.timeout(part.ready_within_s), aiohttp.ClientSession(timeout=_ANSWER_WITHIN) as session:
                while not await _answers(session, part.ready_url):
                    if guarded.status is not None:
                        raise UpError(f"{part.name} {describe(guarded.status)} before it was ready; log: {log}", log)
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            await guarded.end(part.end_within_s)
            raise UpError(f"{part.name} was not ready after {part.ready_within_s:g} s; log: {log}", log) from None

    async def _keep(self, part: Part) -> None:
        failures = 0
        while True:
            since = time.monotonic()
            status = await self._running[part.name].wait()
            failures = 1 if time.monotonic() - since > _STABLE_S else failures + 1
            pause, log = pause_s(failures), self._folder / part.log_name
            self._display.say(f"{part.name} {describe(status)}; it starts again in {pause:g} s; log: {log}")
            await asyncio.sleep(pause)
            with suppress(UpError):  # told by the next turn
                await self._start(part)
                self._display.say(f"{part.name} is ready again")


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
