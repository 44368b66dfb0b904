"""Carries lines to a file or to stderr without ever holding up who writes them."""

import logging
import threading
from collections import deque
from pathlib import Path
from typing import IO, Final

import orjson

log = logging.getLogger(__name__)

MOST_WAITING: Final = 20_000
"""Lines; more than that are dropped, and counted."""
_FLUSH_S: Final = 0.25
_CLOSE_S: Final = 2.0
_STDERR: Final = 2


class Lines:
    """Lines on their way, carried by a thread of its own: a slow disk or a full pipe must stop no request.

    The file is opened anew for each batch, so that whoever rotates it need not tell.

    Args:
        path: the file, which is appended to; None: stderr.

    Raises:
        OSError: if it can't be written at the start.

    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self._told = 0
        """Of those, how many are written down."""
        self._failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)  # a stuck pipe stops no exit
        self._open().close()

    def put(self, line: bytes) -> None:
        """Take a line, without its end; drop it if too many wait."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(line)
        else:
            self._dropped += 1

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self) -> None:
        """Write what is left; gives up after two seconds."""
        self._stop.set()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not self._stop.wait(_FLUSH_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        dropped = self._dropped
        if dropped > self._told:
            batch.append(orjson.dumps({"dropped": dropped - self._told}))
            self._told = dropped
        if not batch:
            return
        try:
            with self._open() as file:
                file.write(b"\n".join(batch) + b"\n")
        except OSError as error:
            if not self._failing:
                log.error("the access log can't be written: %s; its lines are lost until it can", error.strerror)
            self._failing = True
        else:
            self._failing = False

    def _open(self) -> IO[bytes]:
        return self._path.open("ab") if self._path else open(_STDERR, "wb", closefd=False)
