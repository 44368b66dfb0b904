"""How long a response will be: a small grid of quantiles, and what remains once some tokens are out.

A single number would have to be thrown away as soon as it is passed. The grid is sent once, with the request, and the
engine conditions it on the tokens generated so far in every frame: no round trip, no model call.

Between grid points the quantile function is linear, from 0 tokens at probability 0. Beyond the last point the tail is
exponential, with the slope of the last segment: its remaining length no longer depends on what is out, so the bound
keeps rising at the right pace however wrong the grid was.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

GRID: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""The probabilities of a length grid's quantiles, the same wherever one is made or read."""

DEFAULT_TOKENS: Final = 1024.0
"""The paper's stand-in where nothing is known: as much as the caller asked for, at most this."""

_P: Final = np.array((0.0, *GRID))
_STEP_P: Final = np.diff(_P)
_TAIL_P: Final = 1.0 - GRID[-1]
_TRAPEZOIDS: Final = 0.5 * (np.append(_STEP_P, 0.0) + np.insert(_STEP_P, 0, 0.0))
_APART: Final = 1e-3 * np.arange(1, len(_P))
_TAIL_SPAN: Final = float(np.log((1.0 - GRID[-2]) / _TAIL_P))

Floats = NDArray[np.float64]


def default_grid(max_tokens: float) -> tuple[float, ...]:
    """The conservative grid for a request about which nothing is known: every length up to the cap is as likely."""
    cap = min(max_tokens, DEFAULT_TOKENS)
    return tuple(max(1.0, p * cap) for p in GRID)


def valid_grid(values: Sequence[float]) -> bool:
    """Whether these are quantiles at `GRID`: as many, positive, finite, and none smaller than the one before."""
    if len(values) != len(GRID) or not values[0] > 0.0:
        return False
    return all(a <= b for a, b in pairwise(values)) and bool(np.isfinite(values[-1]))


def remaining(grid: Floats, generated: Floats, quantile: float) -> tuple[Floats, Floats]:
    """What is left of each response, given that more than `generated` tokens are needed.

    Args:
        grid: shape (n, len(GRID)), total output lengths in tokens at the probabilities of `GRID`.
        generated: shape (n,), tokens out so far.
        quantile: of the remaining distribution, in (0, 1), for the bound.

    Returns:
        The bound on the total length (never below generated + 1, and never falling as tokens come) and the mean of
        the tokens still to come; both of shape (n,).

    """
    values = np.empty((len(grid), len(_P)))
    values[:, 0] = 0.0
    # Equal neighbours would divide by zero; a thousandth of a token a step keeps them apart and decides nothing.
    np.add(grid, _APART, out=values[:, 1:])
    last = values[:, -1]
    tail = np.maximum((last - values[:, -2]) / _TAIL_SPAN, 1.0)
    bound = _quantile(values, tail, np.full(len(grid), quantile))
    # The mean is the area under the quantile function: trapezoids, and the tail's own mean.
    mean = values @ _TRAPEZOIDS + _TAIL_P * (last + tail)

    started = np.flatnonzero(generated)  # what waits for its first token needs no conditioning, and is the most
    if len(started):
        bound[started], mean[started] = _conditioned(values[started], tail[started], generated[started], quantile)
    return np.maximum(bound, generated + 1.0), np.maximum(mean, 1.0)


def _conditioned(values: Floats, tail: Floats, generated: Floats, quantile: float) -> tuple[Floats, Floats]:
    rows = np.arange(len(values))
    segment = (values <= generated[:, None]).sum(axis=1) - 1
    inside = segment < len(_P) - 1
    low = np.minimum(segment, len(_P) - 2)
    upper = values[rows, low + 1]
    slope = _STEP_P[low] / (upper - values[rows, low])
    # Beyond the grid the distribution has no memory, so how likely it was to get there is never asked.
    survival = np.where(inside, 1.0 - _P[low] - (generated - values[rows, low]) * slope, 1.0)
    bound = _quantile(values, tail, 1.0 - survival * (1.0 - quantile))

    area = (values[:, :-1] + values[:, 1:]) * (0.5 * _STEP_P)
    after = np.cumsum(area[:, ::-1], axis=1)[:, ::-1] - area + (_TAIL_P * (values[:, -1] + tail))[:, None]
    here = after[rows, low] + 0.5 * (generated + upper) * (upper - generated) * slope
    return (
        np.where(inside, bound, generated - tail * np.log1p(-quantile)),
        np.where(inside, here / survival - generated, tail),
    )


def _quantile(values: Floats, tail: Floats, p: Floats) -> Floats:
    rows = np.arange(len(values))
    at = np.minimum(np.searchsorted(_P, p, side="right") - 1, len(_P) - 2)
    low = values[rows, at]
    linear = low + (p - _P[at]) / _STEP_P[at] * (values[rows, at + 1] - low)
    beyond = values[:, -1] + tail * np.log(_TAIL_P / np.maximum(1.0 - p, 1e-300))
    return np.where(p < GRID[-1], linear, beyond)
