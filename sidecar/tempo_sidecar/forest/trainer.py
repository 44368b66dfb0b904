"""Runs the process that grows the forest, and survives whatever becomes of it."""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Final

from tempo_sidecar.forest.grow import Grown, decode_grown
from tempo_sidecar.forest.sample import Records, encode_records

GROW: Final = (sys.executable, "-m", "tempo_sidecar.forest.grow")
TIMEOUT_S: Final = 300.0
_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class TrainingError(Exception):
    """No forest came out; the message says why, in one line."""


async def train(records: Records, command: Sequence[str] = GROW, timeout_s: float = TIMEOUT_S) -> Grown:
    """Have a forest grown by a process of its own, which has ended when this returns or raises.

    Raises:
        TrainingError: it could not be started, failed, took too long, or said something else.

    """
    payload = await asyncio.to_thread(encode_records, records)
    answer = await _ask(command, payload, timeout_s)
    try:
        return await asyncio.to_thread(decode_grown, answer)
    except ValueError as error:
        raise TrainingError(f"its answer is no forest: {error}") from error


async def _ask(command: Sequence[str], payload: bytes, timeout_s: float) -> bytes:
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, env=os.environ | _ONE_THREAD
        )
    except OSError as error:
        raise TrainingError(f"it can't be started: {error}") from error
    try:
        async with asyncio.timeout(timeout_s):
            answer, errors = await process.communicate(payload)
    except TimeoutError:
        raise TrainingError(f"it took more than {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = errors.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise TrainingError(f"it ended with status {process.returncode}: {said or 'no word why'}")
    return answer
