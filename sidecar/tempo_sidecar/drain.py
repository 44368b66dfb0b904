"""Drain by a note in a folder that sidecar and engine share.

Kubernetes ends the engine of a pod before its native sidecar, so the engine's `preStop` hook leaves the note and waits
for the answer before it lets the engine go:

    NOTE      the hook's: take no new request
    NOTEed    the sidecar's answer: none is left, or they have had their time

Without the note, because a new engine has started and removed it, the sidecar takes requests again.
"""

import logging
from pathlib import Path

from tempo_api.http.server import Lifecycle

log = logging.getLogger(__name__)


class DrainNote:
    """Follows the note at `path`; requests in flight have `drain_s` seconds to end."""

    def __init__(self, path: Path, drain_s: float) -> None:
        self._path = path
        self._answer = path.with_name(f"{path.name}ed")
        self._drain_s = drain_s
        self._since_s: float | None = None

    def poll(self, lifecycle: Lifecycle, now_s: float) -> None:
        """Do what the note says, and answer it when that is done. Never raises."""
        if not self._path.exists():
            if self._since_s is not None:
                self._since_s, lifecycle.draining = None, False
            return
        if self._since_s is None:
            log.info("asked to drain: %d requests in flight, at most %g s", lifecycle.in_flight, self._drain_s)
            self._since_s, lifecycle.draining = now_s, True
        if lifecycle.in_flight == 0 or now_s - self._since_s >= self._drain_s:
            try:
                self._answer.touch()
            except OSError as error:
                log.error("%s can't be written (%s); the engine waits for its grace period", self._answer, error)
