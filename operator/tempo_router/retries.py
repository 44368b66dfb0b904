"""How many requests may be tried again: a budget, so that a fleet in trouble does not get all its load twice."""

from math import exp
from typing import Final

SHARE: Final = 0.2
"""Of the requests of late."""
RESERVE: Final = 100.0
"""Beyond that: a replica that dies with all that it held takes nobody along. With the window, ten a second."""
WINDOW_S: Final = 10.0


class RetryBudget:
    """Counts requests and retries; both fade with `WINDOW_S`. The figures are those of Finagle's `RetryBudget`.

    Time is an argument, in seconds of any one clock.
    """

    def __init__(self) -> None:
        self._requests = 0.0
        self._retries = 0.0
        self._at_s = 0.0

    def request(self, now_s: float) -> None:
        """A request is sent to a replica, for the first time or again."""
        self._fade(now_s)
        self._requests += 1.0

    def left(self, now_s: float) -> bool:
        """Whether one more retry is within the budget."""
        self._fade(now_s)
        return self._retries + 1.0 <= SHARE * (self._requests - self._retries) + RESERVE

    def retry(self, now_s: float) -> bool:
        """The same; it is then taken from it."""
        if not self.left(now_s):
            return False
        self._retries += 1.0
        return True

    def _fade(self, now_s: float) -> None:
        kept = exp(min(self._at_s - now_s, 0.0) / WINDOW_S)
        self._requests *= kept
        self._retries *= kept
        self._at_s = now_s
