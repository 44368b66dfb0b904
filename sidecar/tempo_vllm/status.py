"""Keeps the plug-in's status file fresh."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from tempo_api.engine_status import STATUS_ENV, status_file, write_status

__all__ = ["STATUS_ENV", "Housekeeper", "status_file", "write_status"]

_log = logging.getLogger(f"vllm.{__name__}")

LOOK_EVERY_S: Final = 0.1
"""A change is written no later than this: routers act on it."""
CHORE_EVERY_S: Final = 1.0
"""So often the chore is done, and the file is written even if there is no news, for its age says that we live."""


class Housekeeper:
    """A daemon thread that writes the status, if a file is wanted, whenever it changed, and does `chore` now and then.

    A thread, because an engine without work calls no scheduler, and its file would grow stale; and because neither
    disk nor YAML belongs between two steps. It says only that the process lives: `steps` says whether it works.
    """

    def __init__(self, status: Callable[[], Mapping[str, Any]], chore: Callable[[], object] = lambda: None) -> None:
        self._path = status_file()
        self._status = status
        self._chore = chore
        self._stopped = threading.Event()
        self._complained = False
        self._told: Mapping[str, Any] = {}
        self._due_s = 0.0
        self._thread = threading.Thread(target=self._run, name="tempo-housekeeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the file stays, and grows old."""
        self._stopped.set()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while True:
            try:
                self._keep_house(time.monotonic())
            except Exception:
                if not self._complained:
                    _log.exception("Tempo's housekeeping failed; it goes on trying, silently")
                self._complained = True
            if self._stopped.wait(LOOK_EVERY_S):
                return

    def _keep_house(self, now_s: float) -> None:
        due = now_s >= self._due_s
        if due:
            self._due_s = now_s + CHORE_EVERY_S
            self._chore()
        if self._path is not None:
            status = self._status()
            if due or status != self._told:
                write_status(self._path, status)
                self._told = status
