"""A pool for the length of a benchmark: `tempo up` as a child process, stopped again whatever happens."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Final

_START_S: Final = 300.0
_STOP_S: Final = 60.0
_POLL_S: Final = 0.2


PoolStarter = Callable[..., AbstractContextManager[str]]
"""The signature of `pool`."""

VLLMS_OWN: Final = {"engine": (), "engine-priority": ("--scheduling-policy=priority",)}
"""vLLM's own orders, without the plug-in, and what the engine has to be told. Priorities are the sidecar's."""


class PoolError(Exception):
    """The pool did not start; its text ends with the last lines of its log."""


def tempo(*arguments: str) -> list[str]:
    """The command line of `tempo ARGUMENTS` in this Python's own environment."""
    return [sys.executable, "-m", "tempo_api.cli", *arguments]


@contextmanager
def pool(manifest: Path, policy: str, folder: Path, *engine_args: str) -> Iterator[str]:
    """Run the pool that `manifest` declares under `policy`, with its logs in `folder`; yields its URL, `/v1` included.

    `policy` is one of `VLLMS_OWN` or of `tempo up`'s; `engine_args` go to vLLM, after the manifest's own.

    Raises:
        PoolError: if it ends, or is not ready within five minutes.

    """
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    rmtree(folder / "learned", ignore_errors=True)  # no run is to begin with what an earlier one learned
    ordered = "engine" if policy in VLLMS_OWN else policy
    options = ("--policy", ordered, "--port", "0", "--ready-file", str(ready), "--log-dir", str(folder))
    passed_on = [f"--engine-arg={argument}" for argument in (*VLLMS_OWN.get(policy, ()), *engine_args)]
    command = tempo("up", "-f", str(manifest), *options, *passed_on)
    log_path = folder / "up.log"
    with log_path.open("wb") as log:
        # A session of its own: Ctrl-C reaches this process only, which then stops the pool in order.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)  # noqa: S603
        try:
            yield _await_ready(process, ready, log_path)
        finally:
            _stop(process)


def _await_ready(process: subprocess.Popen[bytes], ready: Path, log_path: Path) -> str:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise PoolError(f"tempo up ended with status {process.returncode}:\n{_tail(log_path)}")
        if ready.exists():
            return str(json.loads(ready.read_text(encoding="utf-8"))["url"])
        time.sleep(_POLL_S)
    raise PoolError(f"tempo up was not ready within {_START_S:.0f} s:\n{_tail(log_path)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to drain; kill it only if it does not. Its parts end with it, however it ends."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log_path: Path, lines: int = 20) -> str:
    return "\n".join(log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
