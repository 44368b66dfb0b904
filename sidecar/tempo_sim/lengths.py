"""How long responses will be, as a simulated sidecar predicts it."""

from collections import deque
from math import ceil, inf
from typing import Final, Protocol

from tempo_core.lengths import GRID, default_grid
from tempo_sim.workload import SimCall

Grid = tuple[float, ...]

_WINDOW: Final = 512
_ENOUGH: Final = 32
"""Responses below which a bucket says less than the one it is part of."""
_ANY: Final = 8
"""Responses below which a class says less than the core's default."""
_REFRESH_SHARE: Final = 8
"""Quantiles are worked out again once one in so many of a bucket's responses is new."""
_ALL: Final = -1
_MEDIAN: Final = GRID.index(0.5)


class LengthModel(Protocol):
    """Predicts output lengths, in tokens, and learns from how long they turned out."""

    def predict(self, unit_class: str, call: SimCall) -> Grid:
        """Quantiles of the call's output length at `tempo_core.lengths.GRID`, none above its `max_tokens`."""
        ...

    def learn(self, unit_class: str, call: SimCall) -> None:
        """The call has ended, with its `output_tokens`."""


class OracleLengths:
    """Knows the truth: every quantile is the length that it will be."""

    def predict(self, unit_class: str, call: SimCall) -> Grid:  # noqa: ARG002  # see `LengthModel`
        """See `LengthModel`."""
        return (float(answer_tokens(call)),) * len(GRID)

    def learn(self, unit_class: str, call: SimCall) -> None:
        """There is nothing to learn."""


class UnknownLengths:
    """Learns nothing: the core's default stands for every length."""

    def __init__(self, lengths: LengthModel) -> None:
        """The model that it stands in for is not asked."""

    def predict(self, unit_class: str, call: SimCall) -> Grid:  # noqa: ARG002  # see `LengthModel`
        """See `LengthModel`."""
        return default_grid(call.max_tokens)

    def learn(self, unit_class: str, call: SimCall) -> None:
        """See the class."""


class PointLengths:
    """Another model's median as the one length that there is: tokens that come tell nothing more."""

    def __init__(self, lengths: LengthModel) -> None:
        self._lengths = lengths

    def predict(self, unit_class: str, call: SimCall) -> Grid:
        """See `LengthModel`."""
        return (self._lengths.predict(unit_class, call)[_MEDIAN],) * len(GRID)

    def learn(self, unit_class: str, call: SimCall) -> None:
        """See `LengthModel`."""
        self._lengths.learn(unit_class, call)


class WindowLengths:
    """The latest responses of a class to prompts of about the same length (powers of two), as the sidecar's default.

    The quantiles are order statistics that count one response more, which never ended; what was cut by its
    `max_tokens` never ended either. So they are conservative for any sample size.
    """

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, int], _Bucket] = {}

    def predict(self, unit_class: str, call: SimCall) -> Grid:
        """See `LengthModel`. Too little known of such prompts: the class; of the class: the core's default."""
        for size, enough in ((call.prompt_tokens.bit_length(), _ENOUGH), (_ALL, _ANY)):
            bucket = self._buckets.get((unit_class, size))
            if bucket and (quantiles := bucket.quantiles(enough)):
                return tuple(min(q, float(call.max_tokens)) for q in quantiles)
        return default_grid(call.max_tokens)

    def learn(self, unit_class: str, call: SimCall) -> None:
        """See `LengthModel`."""
        for size in (call.prompt_tokens.bit_length(), _ALL):
            cut = call.output_tokens >= call.max_tokens
            self._buckets.setdefault((unit_class, size), _Bucket()).add(answer_tokens(call), cut=cut)


class _Bucket:
    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
        self._new = 0
        self._quantiles: Grid = ()

    def add(self, tokens: int, *, cut: bool) -> None:
        self._seen.append((inf if cut else float(tokens), tokens))
        self._new += 1

    def quantiles(self, enough: int) -> Grid:
        """Empty as long as there are not `enough` to go by."""
        if len(self._seen) >= enough and (not self._quantiles or self._new * _REFRESH_SHARE >= len(self._seen)):
            ranked = [*sorted(length for length, _ in self._seen), inf]
            most = 2.0 * max(tokens for _, tokens in self._seen)  # where the sample can't tell
            # Less a bit, so that rounding does not push a quantile one response up.
            self._quantiles = tuple(min(ranked[ceil(p * len(ranked) - 1e-9) - 1], most) for p in GRID)
            self._new = 0
        return self._quantiles


def answer_tokens(call: SimCall) -> int:
    """How long the answer is: an engine stops at `max_tokens`."""
    return min(call.output_tokens, call.max_tokens)
