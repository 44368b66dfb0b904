"""The step-time line, learned from steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_core.steptime import StepTime, observe, start_fit


def steps(true: StepTime, count: int, seed: int = 1, noise: float = 0.0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        sequences, prefill = int(rng.integers(0, 64)), int(rng.choice([0, 0, 64, 256, 500]))
        context = sequences * int(rng.integers(50, 900))
        seconds = true.seconds(sequences, prefill, context) * float(np.exp(rng.normal(0, noise)))
        yield seconds, sequences, prefill, context


def fitted(true: StepTime, count: int, noise: float = 0.0):
    fit = start_fit()
    for step in steps(true, count, noise=noise):
        fit = observe(fit, *step)
    return fit


@pytest.mark.parametrize(
    "true",
    [
        StepTime(6.394e-3, 1.041e-5, 2.005e-5, 4.27e-8),  # Llama-3.1-8B on one H100
        StepTime(76e-3, 1.6e-3, 1.35e-3, 0.0),  # a small model on one CPU core
    ],
)
def test_the_line_is_learned_from_noisy_steps(true: StepTime) -> None:
    model = fitted(true, 400, noise=0.05).model
    for sequences, prefill, context in ((1, 0, 500), (32, 0, 16_000), (32, 256, 16_000)):
        want = true.seconds(sequences, prefill, context)
        assert model.seconds(sequences, prefill, context) == pytest.approx(want, rel=0.1)


def test_the_fit_follows_an_engine_that_became_slower() -> None:
    fit = fitted(StepTime(0.01, 1e-4, 1e-4, 0.0), 300)
    slower = StepTime(0.03, 3e-4, 3e-4, 0.0)
    for step in steps(slower, 1500, seed=2):
        fit = observe(fit, *step)
    assert fit.model.seconds(32, 128) == pytest.approx(slower.seconds(32, 128), rel=0.1)


def test_one_stall_does_not_undo_what_was_learned() -> None:
    fit = fitted(StepTime(0.01, 1e-4, 1e-4, 0.0), 300)
    before = fit.model.seconds(16, 64)
    after = observe(fit, 30.0, 16, 64, 4000).model.seconds(16, 64)
    assert after == pytest.approx(before, rel=0.2)


def test_steps_all_alike_keep_the_fit_bounded() -> None:
    fit = start_fit()
    for _ in range(20_000):
        fit = observe(fit, 0.02, 4, 0, 1000)
    assert fit.model.seconds(4, 0, 1000) == pytest.approx(0.02, rel=0.05)
    assert np.isfinite(fit.covariance).all()
    assert np.trace(fit.covariance) <= 4.1e3


@given(st.lists(st.tuples(st.floats(1e-5, 10.0), st.integers(0, 512), st.integers(0, 8192), st.integers(0, 10**6))))
def test_the_model_never_predicts_nothing_or_less(seen: list[tuple[float, int, int, int]]) -> None:
    fit = start_fit()
    for step in seen:
        fit = observe(fit, *step)
    assert fit.model.seconds(0) > 0.0
    assert fit.model.per_sequence_s >= 0.0
    assert fit.model.per_prefill_token_s > 0.0
    assert fit.model.per_context_token_s >= 0.0
