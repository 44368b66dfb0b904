"""How fast the engine has been lately."""

from math import exp

_MEMORY_S = 10.0


class BusyRate:
    """Tokens a second over the time in which there was something to do, the last ten seconds of it counting most.

    An idle engine keeps the rate that it had. Times are seconds of any one clock.
    """

    def __init__(self) -> None:
        self.live = 0
        """Requests in the engine."""
        self._tokens = 0.0
        self._busy_s = 0.0
        self._at_s = 0.0

    def begin(self, now_s: float) -> None:
        """A request enters the engine."""
        self._advance(now_s)
        self.live += 1

    def end(self, now_s: float) -> None:
        """A request has left it."""
        self._advance(now_s)
        self.live -= 1

    def add(self, tokens: int) -> None:
        """Tokens came out."""
        self._tokens += tokens

    def tokens_per_s(self, now_s: float) -> float:
        """The rate; 0 as long as nothing was ever seen."""
        self._advance(now_s)
        return self._tokens / self._busy_s if self._busy_s else 0.0

    def _advance(self, now_s: float) -> None:
        elapsed_s = max(now_s - self._at_s, 0.0)
        if self.live:
            kept = exp(-elapsed_s / _MEMORY_S)
            self._tokens *= kept
            self._busy_s = self._busy_s * kept + _MEMORY_S * (1.0 - kept)
        self._at_s = now_s
