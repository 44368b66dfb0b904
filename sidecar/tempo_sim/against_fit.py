"""An engine's step times, from when the tokens of a real run arrived.

A decoding request gets a token each step. So the time between two of its tokens, some steps apart, is that of these
steps, and the tokens of all requests that arrive meanwhile are what they decoded; whoever gets its first token
meanwhile had its prompt computed in them, but for the edges. The line through all such stretches is

    seconds = base * steps + per sequence * tokens decoded + per prompt token * prompt tokens

It includes everything that happens between two steps, and nothing of what happens outside of them: HTTP, router,
sidecar. A token that is held up on its way, and arrives with the next one, changes little, because a stretch is longer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tempo_sim.profiles import EngineProfile

_STEPS: Final = 5
"""In a stretch; an answer's last stretch may have half as many."""
_FEWEST: Final = 20
"""Stretches, below which nothing is fitted."""
_PAUSE: Final = 4.0
"""Where a step takes so many medians on average, the request had lost its place meanwhile."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """One call of a run that streamed."""

    stamps: Sequence[float]
    """When each token arrived, seconds."""
    computed_tokens: int
    """Of its prompt: what was not in the cache."""


def fit_profile(calls: Sequence[Seen], sizes: EngineProfile) -> EngineProfile:
    """A profile of the sizes of `sizes`, with step times from these calls.

    Raises:
        ValueError: if there are too few tokens to tell.

    """
    stretches = np.array([stretch for call in calls for stretch in _stretches(call.stamps)]).reshape(-1, 3)
    if len(stretches) < _FEWEST:
        raise ValueError(f"a run with {len(stretches)} stretches of {_STEPS} tokens says too little of step times")
    step_s = (stretches[:, 1] - stretches[:, 0]) / stretches[:, 2]
    stretches = stretches[step_s < _PAUSE * np.median(step_s)]
    firsts = np.array(sorted((call.stamps[0], call.computed_tokens) for call in calls))
    later = np.sort([at_s for call in calls for at_s in call.stamps[1:]])
    decoded, prefilled = _within(stretches, later), _within(stretches, firsts[:, 0], firsts[:, 1])
    columns = np.column_stack((stretches[:, 2], decoded, prefilled))
    base_s, sequence_s, token_s = _line(columns, stretches[:, 1] - stretches[:, 0]).tolist()
    return replace(
        sizes,
        name=f"{sizes.name}, as measured",
        decode_base_s=base_s,
        prefill_base_s=base_s,
        sequence_s=sequence_s,
        prefill_token_s=token_s,
        context_token_s=0.0,
        prefill_square_s=0.0,
    )


def _stretches(stamps: Sequence[float]) -> Iterator[tuple[float, float, int]]:
    """(start, end, steps) of a call's stretches."""
    last = len(stamps) - 1
    for start in range(0, last, _STEPS):
        end = min(start + _STEPS, last)
        if end - start >= _STEPS // 2:
            yield stamps[start], stamps[end], end - start


def _within(stretches: Array, times: Array, amounts: Array | None = None) -> Array:
    """How many of the sorted `times` lie after a stretch's start and up to its end; or the sum of their amounts."""
    upto = np.concatenate(((0.0,), np.cumsum(np.ones(len(times)) if amounts is None else amounts)))
    since, until = (np.searchsorted(times, stretches[:, edge], side="right") for edge in (0, 1))
    return np.asarray(upto[until] - upto[since])


def _line(columns: Array, seconds: Array) -> Array:
    """Least squares, no coefficient below zero: one that would be is left out; the first has to be more than zero."""
    kept = list(range(columns.shape[1]))
    while True:
        found = np.linalg.lstsq(columns[:, kept], seconds, rcond=None)[0]
        if (lowest := int(np.argmin(found))) == 0 or found[lowest] >= 0.0:
            break
        del kept[lowest]
    line = np.zeros(columns.shape[1])
    line[kept] = found
    line[0] = max(line[0], 1e-6)
    return line
