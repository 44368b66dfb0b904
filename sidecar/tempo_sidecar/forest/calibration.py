"""Brings a class's quantiles back to their nominal coverage, however far its lengths have drifted.

Split conformal prediction, on-line and for each point of the grid: of the latest responses, the ratios of length to
predicted quantile are kept, and the quantile at p is multiplied by the p-quantile of its own ratios. For exchangeable
responses the result covers at least p (Romano, Patterson and Candes, "Conformalized quantile regression", NeurIPS
2019, with a factor in place of a difference: errors of lengths are relative). The ratio of a response that was cut is
a lower bound, and is taken for one.
"""

from collections import deque
from collections.abc import Iterable
from math import inf
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tempo_core.lengths import GRID
from tempo_sidecar.lengths import censored_quantiles

Floats = NDArray[np.float64]

WINDOW: Final = 256
"""Responses remembered: enough for a factor at 0.99, few enough to follow a drift within minutes."""
_ENOUGH: Final = 64
_REFRESH: Final = 16
"""The factors are worked out again, in half a millisecond, after so many new responses."""
_SIGNIFICANT: Final = 2.0
"""Standard deviations by which coverage must be off; correcting for chance would only add its noise."""


class Calibration:
    """The latest ratios of one class.

    Args:
        ratios: of responses that the model has not seen, oldest first: ratios at `GRID`, and whether cut by a cap.

    """

    def __init__(self, ratios: Iterable[tuple[Floats, bool]] = ()) -> None:
        self._seen = deque(ratios, maxlen=WINDOW)
        self._new = 0
        self.factors = self._worked_out()
        """What to multiply each of the grid's quantiles by."""

    def add(self, raw: Floats, output_tokens: float, *, truncated: bool) -> None:
        """A response whose predicted quantiles were `raw`, all positive, ended."""
        self._seen.append((output_tokens / raw, truncated))
        self._new += 1
        if self._new == _REFRESH:
            self._new = 0
            self.factors = self._worked_out()

    def corrected(self, raw: Floats) -> Floats:
        """`raw` with the coverage that it should have: a valid grid if `raw` is one."""
        grid: Floats = np.maximum(np.maximum.accumulate(raw * self.factors), 1.0)
        return grid

    def _worked_out(self) -> Floats:
        if len(self._seen) < _ENOUGH:
            return np.ones(len(GRID))
        truncated = [cut for _, cut in self._seen]
        ratios = np.array([ratio for ratio, _ in self._seen])
        factors: list[float] = []
        for point, p in enumerate(GRID):
            noise = _SIGNIFICANT * float(np.sqrt(p * (1.0 - p) / len(ratios)))
            near = (p - noise, p, min(p + noise, 1.0))
            low, factor, high = censored_quantiles(ratios[:, point].tolist(), truncated, near)
            if low <= 1.0 <= high:
                factor = 1.0
            # Too few or too often cut to tell: at least as wrong as the point before, and not shrunk on no evidence.
            factors.append(factor if factor < inf else max([1.0, *factors[-1:]]))
        return np.array(factors)
