"""Keeps the plug-in's status file fresh."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from tempo_api.engine_status import STATUS_ENV, status_file, write_status

__all__ = ["INTERVAL_S", "STATUS_ENV", "Housekeeper", "status_file", "write_status"]

_log = logging.getLogger(f"vllm.{__name__}")

INTERVAL_S: Final = 1.0


class Housekeeper:
    """A daemon thread that does `chore` and writes the status, if a file is wanted, each second until `stop`.

    A thread, because an engine without work calls no scheduler, and its file would grow stale; and because neither
    disk nor YAML belongs between two steps. It says only that the process lives: `steps` says whether it works.
    """

    def __init__(self, status: Callable[[], Mapping[str, Any]], chore: Callable[[], object] = lambda: None) -> None:
        self._path = status_file()
        self._status = status
        self._chore = chore
        self._stopped = threading.Event()
        self._complained = False
        self._thread = threading.Thread(target=self._run, name="tempo-housekeeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the file stays, and grows old."""
        self._stopped.set()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while True:
            try:
                self._chore()
                if self._path is not None:
                    write_status(self._path, self._status())
            except Exception:
                if not self._complained:
                    _log.exception("Tempo's housekeeping failed; it goes on trying, silently")
                self._complained = True
            if self._stopped.wait(INTERVAL_S):
                return
