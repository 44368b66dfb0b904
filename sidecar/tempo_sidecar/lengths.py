"""How long responses will be: learned per class and prompt length from what has completed here.

The quantiles are those of the Kaplan-Meier estimate, because a response cut by its `max_tokens` says only that it
would have been at least that long, counted with one response more that never ended. That one keeps them conservative:
for exchangeable responses the chance that the next is no longer than the quantile at p is at least p, and a quantile
that the sample is too small for is unknown, hence the cap.
"""

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Final, Protocol

import numpy as np

from tempo_core.lengths import DEFAULT_TOKENS, GRID, default_grid

Grid = tuple[float, ...]

_WINDOW: Final = 512
"""Responses remembered per bucket: enough for the 0.99 quantile, few enough to follow a changing workload."""
_ENOUGH: Final = 32
"""Responses below which a bucket says less than the one it is part of."""
_REFRESH_SHARE: Final = 8
"""A bucket's quantiles are worked out again, in some 0.3 ms, once one in so many of its responses is new."""


class LengthModel(Protocol):
    """Predicts output lengths, in tokens, and learns from how long they turned out."""

    def predict(self, slo_class: str, prompt_tokens: int, max_tokens: int | None) -> Grid:
        """Quantiles of the output length at `tempo_core.lengths.GRID`, none above `max_tokens`."""
        ...

    def learn(self, slo_class: str, prompt_tokens: int, output_tokens: int, *, truncated: bool) -> None:
        """A response ended with `output_tokens`; `truncated`: it would have been longer but for its cap."""


def censored_quantiles(tokens: Sequence[int], truncated: Sequence[bool]) -> Grid:
    """Quantiles at `GRID` of lengths, some of which are lower bounds only; `inf` where the sample can't tell."""
    lengths, cut = np.asarray(tokens, dtype=np.float64), np.asarray(truncated, dtype=bool)
    order = np.lexsort((cut, lengths))  # of equal lengths, those that ended come first
    at_risk = len(lengths) + 1.0 - np.arange(len(lengths))
    survival = np.cumprod(1.0 - ~cut[order] / at_risk)
    steps = np.append(lengths[order], inf)
    # Rounding must not push a quantile one response up: survival after k of n ends is (n + 1 - k) / (n + 1).
    reached = [int(np.argmax(np.append(survival, 0.0) <= 1.0 - p + 1e-9)) for p in GRID]
    return tuple(float(steps[index]) for index in reached)


class _Bucket:
    """The latest responses of one kind, and their quantiles."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, bool]] = deque(maxlen=_WINDOW)
        self._new = 0
        self._quantiles: Grid = ()

    def add(self, output_tokens: int, truncated: bool) -> None:
        self._seen.append((output_tokens, truncated))
        self._new += 1

    def quantiles(self) -> Grid | None:
        """None as long as there is not enough to go by."""
        if len(self._seen) < _ENOUGH:
            return None
        if not self._quantiles or self._new * _REFRESH_SHARE >= len(self._seen):
            self._quantiles = censored_quantiles(*zip(*self._seen, strict=True))
            self._new = 0
        return self._quantiles


class WindowLengths:
    """The simple honest model: a class's latest responses to prompts of about the same length (powers of two)."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, int], _Bucket] = {}

    def predict(self, slo_class: str, prompt_tokens: int, max_tokens: int | None) -> Grid:
        """See `LengthModel`. Too little known of such prompts: the class; of the class: the core's default."""
        for key in ((slo_class, prompt_tokens.bit_length()), (slo_class, _ALL)):
            bucket = self._buckets.get(key)
            if bucket and (quantiles := bucket.quantiles()):
                return _capped(quantiles, max_tokens)
        return default_grid(inf if max_tokens is None else max_tokens)

    def learn(self, slo_class: str, prompt_tokens: int, output_tokens: int, *, truncated: bool) -> None:
        """See `LengthModel`."""
        for key in ((slo_class, prompt_tokens.bit_length()), (slo_class, _ALL)):
            self._buckets.setdefault(key, _Bucket()).add(output_tokens, truncated)


_ALL: Final = -1


def _capped(quantiles: Grid, max_tokens: int | None) -> Grid:
    """What is unknown becomes the default length or twice the longest that is known; the caller's cap limits all."""
    longest = max((q for q in quantiles if q < inf), default=0.0)
    limit = max(DEFAULT_TOKENS, 2.0 * longest)
    if max_tokens is not None:
        limit = min(limit, max(max_tokens, 1))
    return tuple(min(max(q, 1.0), limit) for q in quantiles)
