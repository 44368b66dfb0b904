"""Follow a manifest file: the last good configuration serves on, whatever is written into the file."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from tempo_api.manifest import ManifestError, Pool, load_pool

log = logging.getLogger(__name__)


def file_stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells one version of a file from another; a ConfigMap's update swaps a link, so the inode counts."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


class Reloader:
    """Reads a manifest file again whenever it changes.

    Args:
        path: the file.
        pool_name: which of its pools, if there are several.

    Raises:
        ManifestError: if the file is bad at the start, for then there is nothing to go on with.

    """

    def __init__(self, path: Path, pool_name: str | None = None) -> None:
        self.path = path
        self.reloads = 0
        """Changes that were taken over."""
        self.failures = 0
        """Changes that were refused."""
        self._pool_name = pool_name
        self._seen = file_stamp(path)
        self.pool = load_pool(path, pool_name)

    def poll(self) -> Pool | None:
        """The new configuration, if the file has changed to a good one since the last call; a bad one is logged once.

        Never raises; `pool` stays the last good one.
        """
        stamp = file_stamp(self.path)
        if stamp == self._seen:
            return None
        self._seen = stamp
        try:
            self.pool = load_pool(self.path, self._pool_name)
        except ManifestError as error:
            self.failures += 1
            log.error("%s; going on with the last good configuration", error)
            return None
        self.reloads += 1
        log.info("%s: new configuration taken over", self.path.name)
        return self.pool

    async def watch(self, on_change: Callable[[Pool], None], *, interval_s: float = 1.0) -> None:
        """Poll until cancelled, calling `on_change` with every new configuration."""
        while True:
            await asyncio.sleep(interval_s)
            if pool := self.poll():
                on_change(pool)
