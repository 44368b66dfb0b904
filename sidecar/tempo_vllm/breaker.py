"""What happens when our own code fails inside the engine: nothing, to the engine."""

import logging
from types import TracebackType
from typing import Final

_log = logging.getLogger(f"vllm.{__name__}")

MOST_IN_A_ROW: Final = 3


class Breaker:
    """A context that swallows exceptions, and opens for good after `MOST_IN_A_ROW` steps that had one.

    The first is logged with its traceback, and so is the last; all are counted.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.reason = ""
        """Why it is open; empty while it is closed."""
        self._last = ""
        self._troubled = False
        self._in_a_row = 0

    @property
    def is_open(self) -> bool:
        """Whether the plug-in must leave the engine alone."""
        return bool(self.reason)

    def next_step(self) -> None:
        """A step of the engine begins."""
        self._in_a_row = self._in_a_row + 1 if self._troubled else 0
        self._troubled = False
        if self._in_a_row >= MOST_IN_A_ROW and not self.is_open:
            self.open(f"failed in {MOST_IN_A_ROW} steps in a row, last with {self._last}")

    def open(self, reason: str) -> None:
        """Give up for good."""
        self.reason = reason
        _log.error("Tempo steps aside and the engine serves in vLLM's own order: %s", reason)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        if not self.failures:
            _log.error("Tempo failed; this step is in vLLM's own order", exc_info=error)
        self.failures += 1
        self._troubled = True
        self._last = f"{type(error).__name__}: {error}"
        return True
