"""The pool's configuration inside the engine: the manifest file, or a stand-in where there is none."""

import logging
from pathlib import Path
from typing import Final

from tempo_api.manifest import ManifestError, Pool, TempoPoolSpec, load_pool
from tempo_core.slo import Pattern, SLOClass
from tempo_core.snapshot import Settings

_log = logging.getLogger(f"vllm.{__name__}")  # below vLLM's logger, so that its handlers apply

STAND_IN: Final = Pool(
    name="default",
    spec=TempoPoolSpec(model="any"),
    classes={"default": SLOClass("default", Pattern.BEST_EFFORT)},
    default_class="default",
    settings=Settings(),
    replicas=1,
)
"""What an engine without a manifest file serves: one best-effort class."""


class PoolFile:
    """The pool that a file declares, read again when it changes; a file that can't be used changes nothing."""

    def __init__(self, path: Path | None) -> None:
        self.pool = STAND_IN
        self._path = path
        self._seen: object = None
        self.refresh()

    def refresh(self) -> None:
        """Read the file if it has changed since the last call. Never raises; problems are logged once each."""
        if self._path is None:
            return
        try:
            stat = self._path.stat()
            seen: object = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        except OSError as error:
            seen = str(error)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.pool = load_pool(self._path)
        except ManifestError as error:
            _log.warning("Tempo keeps serving pool %r as it was: %s", self.pool.name, error)
        except Exception:  # a bug of ours is no reason for the engine not to start
            _log.exception("Tempo keeps serving pool %r as it was", self.pool.name)
        else:
            _log.info("Tempo serves pool %r with classes %s", self.pool.name, ", ".join(self.pool.classes))
