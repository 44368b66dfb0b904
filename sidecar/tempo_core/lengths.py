"""How long a response will be: a small grid of quantiles, and what remains once some tokens are out.

A single number would have to be thrown away as soon as it is passed. The grid is sent once, with the request, and the
engine conditions it on the tokens generated so far in every frame: no round trip, no model call.

Between grid points the quantile function is linear, from 0 tokens at probability 0. Beyond the last point the tail is
exponential, with the slope of the last segment: its remaining length no longer depends on what is out, so the bound
keeps rising at the right pace however wrong the grid was.
"""

from bisect import bisect_right
from collections import OrderedDict, defaultdict, deque
from collections.abc import Sequence
from itertools import pairwise
from math import isfinite, log
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

GRID: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""The probabilities of a length grid's quantiles, the same wherever one is made or read."""

DEFAULT_TOKENS: Final = 1024.0
"""The paper's stand-in where nothing is known: as much as the caller asked for, at most this."""

_P: Final = (0.0, *GRID)
_CUMULATIVE: Final = np.array(_P)
_STEP_P: Final = np.diff(_P)
_TAIL_P: Final = 1.0 - GRID[-1]
_TAIL_SPAN: Final = log((1.0 - GRID[-2]) / _TAIL_P)
_APART: Final = 1e-3
"""Equal neighbours would divide by zero; a thousandth of a token a step keeps them apart and decides nothing."""
_KNOTS: Final = len(_P)
CURVE: Final = 2 * _KNOTS + 1
"""Numbers in a `curve`."""

Floats = NDArray[np.float64]


def default_grid(max_tokens: float) -> tuple[float, ...]:
    """The grid for a request about which nothing is known: exponential, one response in a hundred reaches the cap.

    Callers ask for far more tokens than most responses need. Were every length up to the cap as likely, deadlines that
    can be met would be given up until something has been learned.
    """
    cap = min(max_tokens, DEFAULT_TOKENS)
    return exponential_grid(-cap / log(_TAIL_P), cap)


def exponential_grid(mean: float, cap: float) -> tuple[float, ...]:
    """The grid where only the mean length is known, and that no response is longer than the cap."""
    return tuple(min(max(-mean * log(1.0 - p), 1.0), max(cap, 1.0)) for p in GRID)


_FIRST_GUESS: Final = 256.0
_REMEMBERED: Final = 31
"""Responses that a usual length is the median of."""
_TENANTS: Final = 10_000
_Tokens = deque[int]


class UsualLengths:
    """How long responses have been lately, by class and tenant: all that a router knows, whose sidecars know more.

    Each tenant's are its own: one that floods a class with short requests would have all of it taken for short. It is
    the median, for a few long responses make the mean, and by that too many requests are given up.
    """

    def __init__(self) -> None:
        self._classes: defaultdict[str, _Tokens] = defaultdict(_window)
        self._tenants: OrderedDict[tuple[str, str], _Tokens] = OrderedDict()  # the longest unheard of first

    def __len__(self) -> int:
        return len(self._tenants)

    def usual(self, slo_class: str, tenant: str) -> float:
        """Output tokens of this tenant's responses of the class, or where it has had none, of everybody's."""
        known = self._tenants.get((slo_class, tenant)) or self._classes.get(slo_class)
        return median(known) if known else _FIRST_GUESS

    def learn(self, slo_class: str, tenant: str, tokens: int) -> None:
        """A response is complete."""
        key = slo_class, tenant
        self._tenants.setdefault(key, _window()).append(tokens)
        self._tenants.move_to_end(key)
        if len(self._tenants) > _TENANTS:
            self._tenants.popitem(last=False)
        self._classes[slo_class].append(tokens)


def _window() -> _Tokens:
    return deque(maxlen=_REMEMBERED)


def valid_grid(values: Sequence[float]) -> bool:
    """Whether these are quantiles at `GRID`: as many, positive, finite, and none smaller than the one before."""
    if len(values) != len(GRID) or not values[0] > 0.0:
        return False
    return all(a <= b for a, b in pairwise(values)) and isfinite(values[-1])


def curve(grid: Sequence[float]) -> tuple[float, ...]:
    """A grid as `remaining` reads it, worked out once a request.

    The knots of the quantile function; for each the area under the function from there on, the tail's own mean
    included (so the first is the mean length); and the scale of the tail.
    """
    knots = [0.0, *(value + _APART * step for step, value in enumerate(grid, 1))]
    tail = max((knots[-1] - knots[-2]) / _TAIL_SPAN, 1.0)
    area = _TAIL_P * (knots[-1] + tail)
    areas = [area]
    for (low, high), (p_low, p_high) in zip(reversed([*pairwise(knots)]), reversed([*pairwise(_P)]), strict=True):
        area += 0.5 * (low + high) * (p_high - p_low)
        areas.append(area)
    return (*knots, *reversed(areas), tail)


def remaining(curves: Floats, generated: Floats, quantile: float) -> tuple[Floats, Floats]:
    """What is left of each response, given that more than `generated` tokens are needed.

    Args:
        curves: shape (n, CURVE), one `curve` a row.
        generated: shape (n,), tokens out so far.
        quantile: of the remaining distribution, in (0, 1), for the bound.

    Returns:
        The bound on the total length (never below generated + 1, and never falling as tokens come) and the mean of
        the tokens still to come; both of shape (n,).

    """
    bound, mean = _bound(curves, quantile), curves[:, _KNOTS].copy()
    started = np.flatnonzero(generated)  # what waits for its first token needs no conditioning, and is the most
    if len(started):
        bound[started], mean[started] = _conditioned(curves[started], generated[started], quantile)
    return np.maximum(bound, generated + 1.0), np.maximum(mean, 1.0)


def _bound(curves: Floats, quantile: float) -> Floats:
    """The quantile of responses of which nothing is out."""
    at = bisect_right(_P, quantile) - 1
    low = curves[:, at]
    if at == _KNOTS - 1:
        return low + curves[:, -1] * log(_TAIL_P / (1.0 - quantile))
    share = (quantile - _P[at]) / (_P[at + 1] - _P[at])
    return low + share * (curves[:, at + 1] - low)


def _conditioned(curves: Floats, generated: Floats, quantile: float) -> tuple[Floats, Floats]:
    knots, areas, tail = curves[:, :_KNOTS], curves[:, _KNOTS:-1], curves[:, -1]
    rows = np.arange(len(curves))
    segment = (knots <= generated[:, None]).sum(axis=1) - 1
    inside = segment < _KNOTS - 1
    low = np.minimum(segment, _KNOTS - 2)
    lower, upper = knots[rows, low], knots[rows, low + 1]
    slope = _STEP_P[low] / (upper - lower)
    # Beyond the grid the distribution has no memory, so how likely it was to get there is never asked.
    survival = np.where(inside, 1.0 - _CUMULATIVE[low] - (generated - lower) * slope, 1.0)
    area = areas[rows, low + 1] + 0.5 * (generated + upper) * (upper - generated) * slope
    return (
        np.where(inside, _quantile(curves, 1.0 - survival * (1.0 - quantile)), generated - tail * log(1.0 - quantile)),
        np.where(inside, area / survival - generated, tail),
    )


def _quantile(curves: Floats, p: Floats) -> Floats:
    rows = np.arange(len(curves))
    at = np.minimum(np.searchsorted(_CUMULATIVE, p, side="right") - 1, _KNOTS - 2)
    low = curves[rows, at]
    linear = low + (p - _CUMULATIVE[at]) / _STEP_P[at] * (curves[rows, at + 1] - low)
    beyond = curves[:, _KNOTS - 1] + curves[:, -1] * np.log(_TAIL_P / np.maximum(1.0 - p, 1e-300))
    return np.where(p < GRID[-1], linear, beyond)
