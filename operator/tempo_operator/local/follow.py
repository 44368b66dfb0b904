"""Follow the user's manifests while the pool runs."""

from pathlib import Path

from tempo_api.manifest import ManifestError
from tempo_operator.local.config import Config, Wishes, compile_config, keep_fixed, write_atomically


class Follower:
    """Puts good changes of `source` into `target`, which every part reloads by itself.

    Args:
        source: the manifests, which the user edits.
        wishes: the command line's.
        config: what the pool runs with.
        target: the compiled configuration that its parts read.

    """

    def __init__(self, source: Path, wishes: Wishes, config: Config, target: Path) -> None:
        self.config = config
        self._source = source
        self._wishes = wishes
        self._target = target
        self._handled = self._last = self._read()

    def poll(self) -> list[str]:
        """Take over what has changed since the last call; what to tell the user. Never raises.

        A change counts once two calls see the same text, for an editor may be in the middle of writing it.
        """
        text = self._read()
        settled, self._last = text == self._last, text
        if not settled or text == self._handled:
            return []
        self._handled = text
        if text is None:
            return [f"{self._source.name} can't be read; the pool keeps its last good configuration"]
        try:
            return self._take_over(compile_config(text, self._source.name, self._wishes))
        except (ManifestError, OSError) as error:
            return [f"{error}; the pool keeps its last good configuration"]

    def _take_over(self, new: Config) -> list[str]:
        config, fixed = keep_fixed(new, self.config)
        write_atomically(self._target, config.text)
        self.config = config
        told = [f"{self._source.name}: {path} needs a restart of tempo up; it stays as it was" for path in fixed]
        return [*told, f"{self._source.name}: taken over"]

    def _read(self) -> str | None:
        try:
            return self._source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
