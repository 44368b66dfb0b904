"""How long an engine step takes, fitted online from the steps that the engine ran.

    seconds = base + per_sequence * sequences + per_prefill_token * prefill tokens + per_context_token * context tokens

The line is the one that fits measured GPUs within a few per cent; its coefficients are learned by recursive least
squares with exponential forgetting, so that they follow a neighbour, a throttled clock or a changed batch.
"""

from dataclasses import dataclass
from typing import Final

_SCALE: Final = (1.0, 32.0, 256.0, 16384.0)
"""Typical sizes of the four terms; scaled inputs keep the fit well conditioned."""

_LEAST: Final = (1e-5, 0.0, 1e-9, 0.0)
"""No coefficient is less."""

_WOUND_UP: Final = 4e3
"""Steps that are all alike tell nothing of the other terms: their uncertainty grows no further than this."""

Vector = tuple[float, float, float, float]

_IDENTITY: Final[tuple[Vector, ...]] = (
    (1.0, 0.0, 0.0, 0.0),
    (0.0, 1.0, 0.0, 0.0),
    (0.0, 0.0, 1.0, 0.0),
    (0.0, 0.0, 0.0, 1.0),
)


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
    """The state of the fit: `observe` returns the next one; `model` is what it says now.

    Plain floats: with four terms, an array would cost more than the arithmetic.
    """

    theta: Vector
    """Coefficients for scaled inputs, seconds."""
    covariance: tuple[Vector, ...]
    """How uncertain each still is; symmetric."""
    observations: int = 0

    @property
    def model(self) -> StepTime:
        """The line through what was seen; no coefficient is negative."""
        return StepTime(*(max(t / scale, least) for t, scale, least in zip(self.theta, _SCALE, _LEAST, strict=True)))


def start_fit(prior: StepTime | None = None) -> StepTimeFit:
    """A fit that believes `prior` until it has seen steps."""
    p = prior or StepTime()
    raw = (p.base_s, p.per_sequence_s, p.per_prefill_token_s, p.per_context_token_s)
    a, b, c, d = (value * scale for value, scale in zip(raw, _SCALE, strict=True))
    return StepTimeFit((a, b, c, d), _IDENTITY)


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
    _, s1, s2, s3 = _SCALE
    x1, x2, x3 = sequences / s1, prefill_tokens / s2, context_tokens / s3
    t0, t1, t2, t3 = fit.theta
    predicted = t0 + t1 * x1 + t2 * x2 + t3 * x3
    if fit.observations > 20 and predicted > 0.0:
        seconds = min(seconds, 3.0 * predicted)
    px = [a + b * x1 + c * x2 + d * x3 for a, b, c, d in fit.covariance]
    p0, p1, p2, p3 = px
    forget = 1.0 - 1.0 / memory_steps
    spread = forget + p0 + p1 * x1 + p2 * x2 + p3 * x3
    error = (seconds - predicted) / spread
    trace = sum(row[i] - px[i] * px[i] / spread for i, row in enumerate(fit.covariance)) / forget
    keep = min(_WOUND_UP / trace, 1.0) / forget if trace > 0.0 else 1.0 / forget
    covariance = tuple(
        (
            keep * (a - p * p0 / spread),
            keep * (b - p * p1 / spread),
            keep * (c - p * p2 / spread),
            keep * (d - p * p3 / spread),
        )
        for p, (a, b, c, d) in zip(px, fit.covariance, strict=True)
    )
    theta = (t0 + error * p0, t1 + error * p1, t2 + error * p2, t3 + error * p3)
    return StepTimeFit(theta, covariance, fit.observations + 1)
