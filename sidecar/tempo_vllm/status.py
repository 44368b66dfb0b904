"""What the plug-in says of itself: a small file that the sidecar reads. Standard library only."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

_log = logging.getLogger(f"vllm.{__name__}")

STATUS_ENV: Final = "TEMPO_STATUS_FILE"
INTERVAL_S: Final = 1.0


def status_file() -> Path | None:
    """Where the environment wants the status; None: nowhere."""
    name = os.environ.get(STATUS_ENV)
    return Path(name) if name else None


def write_status(path: Path, status: Mapping[str, Any]) -> None:
    """Replace the file whole, so that no reader sees half of it.

    Raises:
        OSError: where the folder can't be written.

    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps({**status, "written_s": time.time()}), encoding="utf-8")
    draft.replace(path)


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
