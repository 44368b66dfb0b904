"""How long responses will be: the interface, and the simple model, which learns per class and prompt length.

It serves alone where nothing else is configured, and stands in for `tempo_sidecar.forest` until that has learned. The
quantiles are those of the Kaplan-Meier estimate, because a response cut by its `max_tokens` says only that it
would have been at least that long, counted with one response more that never ended. That one keeps them conservative:
for exchangeable responses the chance that the next is no longer than the quantile at p is at least p, and a quantile
that the sample is too small for is unknown, hence the cap.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from math import inf
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Metric

from tempo_core.lengths import GRID, default_grid

Grid = tuple[float, ...]

_WINDOW: Final = 512
"""Responses remembered per bucket: enough for the 0.99 quantile, few enough to follow a changing workload."""
_ENOUGH: Final = 32
"""Responses below which a bucket says less than the one it is part of."""
_ANY: Final = 8
"""Responses below which a class says less than the core's default."""
_REFRESH_SHARE: Final = 8
"""A bucket's quantiles are worked out again, in some 0.3 ms, once one in so many of its responses is new."""


@dataclass(frozen=True, slots=True)
class LengthQuery:
    """What a length may depend on. Lengths are in tokens."""

    slo_class: str
    prompt_tokens: int
    """An estimate."""
    max_tokens: int | None = None
    stage: int = 0
    """Of its program."""
    body: Mapping[str, Any] | None = None
    """The request as the caller sent it: any JSON, checked no further than `tempo_api.openai.parse_body` does."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Quantiles of an output length, and what `LengthModel.learn` must know of how they came about."""

    grid: Grid
    """At `tempo_core.lengths.GRID`, none above the query's `max_tokens`."""
    slo_class: str
    prompt_tokens: int
    row: NDArray[np.float32] | None = None
    """The features, of a model that looks at the prompt."""
    raw: NDArray[np.float64] | None = None
    """The grid before calibration and cap; None if another model stood in."""
    generation: int = 0
    """How often the model that made `raw` had been trained."""


class LengthModel(Protocol):
    """Predicts output lengths, in tokens, and learns from how long they turned out. Neither call ever waits."""

    def predict(self, query: LengthQuery) -> Prediction:
        """The output length's distribution."""
        ...

    def learn(self, prediction: Prediction, output_tokens: int, *, truncated: bool) -> None:
        """The response ended with `output_tokens`; `truncated`: it would have been longer but for its cap."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Within it, the model does what it does in the background."""
        ...

    def metrics(self) -> Iterable[Metric]:
        """How the model fares."""
        ...


def censored_quantiles(
    tokens: Sequence[float], truncated: Sequence[bool], probabilities: Sequence[float] = GRID
) -> Grid:
    """Quantiles of lengths, some of which are lower bounds only; `inf` where the sample can't tell."""
    lengths, cut = np.asarray(tokens, dtype=np.float64), np.asarray(truncated, dtype=bool)
    order = np.lexsort((cut, lengths))  # of equal lengths, those that ended come first
    at_risk = len(lengths) + 1.0 - np.arange(len(lengths))
    survival = np.cumprod(1.0 - ~cut[order] / at_risk)
    steps = np.append(lengths[order], inf)
    # Rounding must not push a quantile one response up: survival after k of n ends is (n + 1 - k) / (n + 1).
    reached = [int(np.argmax(np.append(survival, 0.0) <= 1.0 - p + 1e-9)) for p in probabilities]
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

    def quantiles(self, enough: int) -> Grid | None:
        """None as long as there are not `enough` to go by."""
        if len(self._seen) < enough:
            return None
        if not self._quantiles or self._new * _REFRESH_SHARE >= len(self._seen):
            tokens, truncated = zip(*self._seen, strict=True)
            self._quantiles = known(censored_quantiles(tokens, truncated), max(tokens))
            self._new = 0
        return self._quantiles


class WindowLengths:
    """The simple honest model: a class's latest responses to prompts of about the same length (powers of two)."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, int], _Bucket] = {}

    def predict(self, query: LengthQuery) -> Prediction:
        """See `LengthModel`. Too little known of such prompts: the class; of the class: the core's default."""
        return Prediction(self._grid(query), query.slo_class, query.prompt_tokens)

    def learn(self, prediction: Prediction, output_tokens: int, *, truncated: bool) -> None:
        """See `LengthModel`."""
        self.add(prediction.slo_class, prediction.prompt_tokens, output_tokens, truncated=truncated)

    def add(self, slo_class: str, prompt_tokens: int, output_tokens: int, *, truncated: bool) -> None:
        """What `learn` does, for a response that was not predicted here."""
        for key in ((slo_class, prompt_tokens.bit_length()), (slo_class, _ALL)):
            self._buckets.setdefault(key, _Bucket()).add(output_tokens, truncated)

    def running(self) -> AbstractAsyncContextManager[None]:
        """See `LengthModel`. Nothing runs."""
        return nullcontext()

    def metrics(self) -> Iterable[Metric]:
        """See `LengthModel`. There are none."""
        return ()

    def _grid(self, query: LengthQuery) -> Grid:
        for size, enough in ((query.prompt_tokens.bit_length(), _ENOUGH), (_ALL, _ANY)):
            bucket = self._buckets.get((query.slo_class, size))
            if bucket and (quantiles := bucket.quantiles(enough)):
                return capped(quantiles, query.max_tokens)
        return default_grid(inf if query.max_tokens is None else query.max_tokens)


_ALL: Final = -1


def known(quantiles: Sequence[float], longest: float) -> Grid:
    """What is unknown (`inf`) becomes twice the longest response that was seen."""
    return tuple(min(max(q, 1.0), 2.0 * longest) for q in quantiles)


def capped(grid: Sequence[float], max_tokens: int | None) -> Grid:
    """`grid` within the caller's cap."""
    if max_tokens is None or grid[-1] <= max_tokens:
        return tuple(grid)
    return tuple([min(q, max(max_tokens, 1)) for q in grid])
