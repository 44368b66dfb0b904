"""Where the replicas are, from a file that may change while the router runs."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from tempo_api.reload import file_stamp

log = logging.getLogger(__name__)


class ReplicasError(ValueError):
    """A file that can't be used; the text is one line: what is wrong, and what to write."""


def is_url(text: object) -> bool:
    """Whether that is the base URL of a server."""
    try:
        parts = urlsplit(text) if isinstance(text, str) else None
        return parts is not None and parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def problem_of(name: object, url: object) -> str | None:
    """Why that is no replica, and what to write instead; None if it is one."""
    if not (name and isinstance(name, str) and is_url(url)):
        return f"{url!r} is no replica; write a name and a URL, such as r0 and http://127.0.0.1:9000"
    if urlsplit(str(url)).scheme == "https":
        remedy = "write http://, and let a service mesh or a TLS proxy beside each encrypt the way"
        return f"{url!r} asks for TLS, which the router does not speak to sidecars; {remedy}"
    return None


def read_replicas(path: Path) -> Mapping[str, str]:
    """Base URL of each replica by name; there may be none.

    Raises:
        ReplicasError: for a file that can't be read or holds anything else.

    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReplicasError(f"{path}: can't be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ReplicasError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ReplicasError(
            f"{path}: write a line for each replica, such as r0: http://127.0.0.1:9000, or {{}} for none"
        )
    for name, url in found.items():
        if problem := problem_of(name, url):
            raise ReplicasError(f"{path}: {name}: {problem}")
    return found


class ReplicasFile:
    """Reads a file of replicas again whenever it changes; a bad change is logged once, and changes nothing.

    Raises:
        ReplicasError: if the file is bad at the start, for then there is nothing to go on with.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = file_stamp(path)
        self.replicas = read_replicas(path)
        """The last good ones."""

    def poll(self) -> Mapping[str, str] | None:
        """The replicas, if the file has changed to a good one since the last call. Never raises."""
        stamp = file_stamp(self._path)
        if stamp == self._seen:
            return None
        self._seen = stamp
        try:
            self.replicas = read_replicas(self._path)
        except ReplicasError as error:
            log.error("%s; going on with the %d replicas known", error, len(self.replicas))
            return None
        log.info("%s: %d replicas", self._path.name, len(self.replicas))
        return self.replicas

    async def watch(self, on_change: Callable[[Mapping[str, str]], None], *, interval_s: float = 1.0) -> None:
        """Poll until cancelled, calling `on_change` with every new set of replicas."""
        while True:
            await asyncio.sleep(interval_s)
            if (replicas := self.poll()) is not None:
                on_change(replicas)
