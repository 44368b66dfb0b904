"""How long an engine step takes, fitted online from the steps that the engine ran.

    seconds = base + per_sequence * sequences + per_prefill_token * prefill tokens + per_context_token * context tokens

The line is the one that fits measured GPUs within a few per cent; its coefficients are learned by recursive least
squares with exponential forgetting, so that they follow a neighbour, a throttled clock or a changed batch.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SCALE: Final = np.array((1.0, 32.0, 256.0, 16384.0))
"""Typical sizes of the four terms; scaled inputs keep the fit well conditioned."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """Coefficients in seconds. The default is a guess for a small GPU that the first few steps correct."""

    base_s: float = 8e-3
    per_sequence_s: float = 5e-5
    per_prefill_token_s: float = 5e-5
    per_context_token_s: float = 0.0

    def seconds(self, sequences: float, prefill_tokens: float = 0.0, context_tokens: float = 0.0) -> float:
        """Predicted duration of a step that decodes `sequences` sequences and prefills this many tokens."""
        return (
            self.base_s
            + self.per_sequence_s * sequences
            + self.per_prefill_token_s * prefill_tokens
            + self.per_context_token_s * context_tokens
        )


@dataclass(frozen=True, slots=True)
class StepTimeFit:
    """The state of the fit: `observe` returns the next one; `model` is what it says now."""

    theta: NDArray[np.float64]
    """Shape (4,): coefficients for scaled inputs, seconds."""
    covariance: NDArray[np.float64]
    """Shape (4, 4): how uncertain each still is."""
    observations: int = 0
    model: StepTime = field(default_factory=StepTime)


def start_fit(prior: StepTime | None = None) -> StepTimeFit:
    """A fit that believes `prior` until it has seen steps."""
    prior = prior or StepTime()
    raw = np.array((prior.base_s, prior.per_sequence_s, prior.per_prefill_token_s, prior.per_context_token_s))
    return StepTimeFit(theta=raw * _SCALE, covariance=np.eye(4), model=prior)


def observe(
    fit: StepTimeFit,
    seconds: float,
    sequences: int,
    prefill_tokens: int,
    context_tokens: int,
    *,
    memory_steps: float = 500.0,
) -> StepTimeFit:
    """Learn from one step that took `seconds`; steps older than about `memory_steps` fade.

    A step far above the prediction (a page fault, a paused machine) counts as three times the prediction at most once
    the fit has settled, so that one stall does not undo what a hundred steps taught.
    """
    x = np.array((1.0, sequences, prefill_tokens, context_tokens)) / _SCALE
    predicted = float(x @ fit.theta)
    if fit.observations > 20 and predicted > 0.0:
        seconds = min(seconds, 3.0 * predicted)
    forget = 1.0 - 1.0 / memory_steps
    px = fit.covariance @ x
    gain = px / (forget + float(x @ px))
    theta = fit.theta + gain * (seconds - predicted)
    covariance = (fit.covariance - gain[:, None] * px) / forget
    if (trace := covariance.trace()) > 4e3:  # steps that are all alike tell nothing of the other terms: do not wind up
        covariance *= 4e3 / trace
    raw = np.maximum(theta, 0.0) / _SCALE
    model = StepTime(max(float(raw[0]), 1e-5), float(raw[1]), max(float(raw[2]), 1e-9), float(raw[3]))
    return StepTimeFit(theta, covariance, fit.observations + 1, model)
