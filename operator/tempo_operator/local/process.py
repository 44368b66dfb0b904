"""One command running under a guard (see `guard`), its output in a file."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

_GUARD: Final = "tempo_operator.local.guard"
_GUARD_END_S: Final = 15.0
"""Longer than a guard needs to kill what hangs in the kernel."""


class Guarded:
    """A running command and all that it starts. Make one with `start`."""

    def __init__(self, guard: asyncio.subprocess.Process) -> None:
        self._guard = guard

    @classmethod
    async def start(cls, argv: Sequence[str], env: Mapping[str, str], log: Path) -> Self:
        """Run `argv` with `env` added to this process's own environment, and append its output to `log`.

        The standard input of the guard is its lifeline: held by this process only, and closed by the kernel if need
        be. A session of its own keeps the terminal's Ctrl-C from reaching all parts at once.
        """
        with log.open("ab") as output:
            guard = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", _GUARD, "--", *argv),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=os.environ | env,
                start_new_session=True,
            )
        return cls(guard)

    @property
    def pid(self) -> int:
        """Of the guard; the command is its child."""
        return self._guard.pid

    @property
    def status(self) -> int | None:
        """The command's exit code, or 128 and the number of the signal that ended it; None while it runs."""
        return self._guard.returncode

    async def wait(self) -> int:
        """Wait for the end of the command and all that it started; the status."""
        return await self._guard.wait()

    async def end(self, within_s: float) -> None:
        """Ask the command to end, and after `within_s` kill it and all that it started."""
        with suppress(ProcessLookupError):
            self._guard.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._guard.wait(), within_s)
        self.end_now()
        try:
            await asyncio.wait_for(self._guard.wait(), _GUARD_END_S)
        except TimeoutError:
            self._guard.kill()
            await self._guard.wait()

    def end_now(self) -> None:
        """Kill the command and all that it started, without waiting for it."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()


async def run_once(argv: Sequence[str], env: Mapping[str, str], log: Path, within_s: float) -> int:
    """Run a command to its end, as `Guarded` does; its status. It ends with its caller, and after `within_s`."""
    guarded = await Guarded.start(argv, env, log)
    with suppress(TimeoutError):
        try:
            await asyncio.wait_for(guarded.wait(), within_s)
        finally:
            guarded.end_now()
    return await guarded.wait()


def describe(status: int) -> str:
    """A status in words."""
    if status > 128:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(status - 128).name}"
    return f"ended with exit code {status}"
