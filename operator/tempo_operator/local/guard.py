"""A small process between `tempo up` and each part of a pool, so that nothing is ever left running.

A part may start processes of its own, in other process groups and sessions (vLLM's engine core does), and `tempo up`
may be killed before it can stop anything. The guard outlives neither: it adopts whatever its part leaves behind, and
kills it all when

1. its part ends, for whatever reason; the guard then ends with the same status;
2. its standard input ends, which the kernel sees to when `tempo up` dies, however it dies.

SIGTERM is passed on to the part and nothing else, so that the part can drain. If the guard itself is killed, the
kernel kills the part, and what the part started falls to `tempo up` (see `end_descendants`).

    python -m tempo_operator.local.guard -- COMMAND [ARGUMENT ...]

Standard library only, and Linux only: one of these runs beside every part, so it has to be light.
"""

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_STDIN: Final = 0
_PATIENCE_S: Final = 10.0
"""How long killed processes may take to disappear; only one that hangs in the kernel takes so long."""


def adopt_orphans() -> None:
    """Make this process, not init, the new parent of every orphan among its descendants."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_descendants() -> None:
    """Kill every descendant of this process, and those that they start meanwhile, until none is left.

    Needs `adopt_orphans` to reach processes whose own parent is gone, and reaps them.
    """
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        children = _children()
        mine = children.get(os.getpid(), [])
        if not mine:
            return
        for pid in mine:
            _end_tree(pid, children)
        for pid in mine:
            _reap(pid)
        time.sleep(0.01)


def main() -> int:
    """Run the command after `--`, and end with its status: its exit code, or 128 and the signal's number."""
    command = sys.argv[sys.argv.index("--") + 1 :]
    adopt_orphans()
    wake, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    status = _watch(_start(command), wake)
    end_descendants()
    return status


def _watch(part: int, wake: int) -> int:
    """Pass SIGTERM on until the part ends or standard input does."""
    while True:
        readable, _, _ = select.select([_STDIN, wake], [], [])
        if _STDIN in readable and not os.read(_STDIN, 64):
            return 128 + signal.SIGKILL
        if wake in readable and signal.SIGTERM in os.read(wake, 64):
            os.kill(part, signal.SIGTERM)
        status = _reap_until(part)
        if status is not None:
            return status


def _start(command: list[str]) -> int:
    guard = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # it died before the line above
            os._exit(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), _STDIN)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606  # the command line of a part, never a shell's
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _reap_until(part: int) -> int | None:
    """Reap every dead child; the part's status, if it is among them."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return None
        if pid == part:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _end_tree(pid: int, children: dict[int, list[int]]) -> None:
    for child in children.get(pid, []):
        _end_tree(child, children)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _children() -> dict[int, list[int]]:
    """Every process on this machine, by parent."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.name))
    return children


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


if __name__ == "__main__":
    sys.exit(main())
