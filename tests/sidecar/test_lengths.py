from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_core.lengths import GRID, default_grid, valid_grid
from tempo_sidecar.lengths import LengthQuery, WindowLengths, censored_quantiles

LENGTHS = st.lists(st.tuples(st.integers(1, 5000), st.booleans()), min_size=1, max_size=150)
CAP = st.none() | st.integers(1, 4000)


def learn(model, lengths, slo_class="chat", prompt=100, *, truncated=False):
    for length in lengths:
        model.add(slo_class, prompt, int(length), truncated=truncated)


def predict(model, slo_class, prompt, cap):
    return model.predict(LengthQuery(slo_class, prompt, cap)).grid


@given(LENGTHS, CAP, st.integers(0, 10_000))
def test_a_prediction_is_always_a_valid_grid_within_the_callers_cap(seen, cap, prompt):
    model = WindowLengths()
    for length, truncated in seen:
        model.add("chat", 100, length, truncated=truncated)
    grid = predict(model, "chat", prompt, cap)
    assert valid_grid(grid)
    assert cap is None or max(grid) <= max(cap, 1)


@given(LENGTHS)
def test_a_response_that_was_cut_never_makes_the_prediction_shorter(seen):
    tokens, _ = zip(*seen, strict=True)
    ended = censored_quantiles(tokens, [False] * len(tokens))
    cut = censored_quantiles(tokens, [truncated for _, truncated in seen])
    assert all(a <= b for a, b in zip(ended, cut, strict=True))


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=300))
def test_each_quantile_covers_its_share_of_what_was_seen(tokens):
    grid = censored_quantiles(tokens, [False] * len(tokens))
    for p, quantile in zip(GRID, grid, strict=True):
        assert np.mean(np.array(tokens) <= quantile) >= p


def test_too_small_a_sample_does_not_pretend_to_know_the_tail():
    grid = censored_quantiles(range(1, 51), [False] * 50)
    assert grid[GRID.index(0.95)] == 49
    assert grid[GRID.index(0.99)] == inf


def test_the_bound_covers_new_responses_at_least_as_often_as_it_says():
    rng = np.random.default_rng(7)
    model, covered = WindowLengths(), []
    for length in np.ceil(rng.lognormal(4.5, 0.8, 4000)):
        bound = predict(model, "chat", 100, None)[GRID.index(0.95)]
        covered.append(length <= bound)
        learn(model, [length])
    assert 0.945 <= np.mean(covered[200:]) <= 0.975


def test_lengths_behind_a_cap_are_estimated_and_not_taken_for_short():
    rng = np.random.default_rng(7)
    true = np.ceil(rng.exponential(200.0, 400))
    model = WindowLengths()
    for index, length in enumerate(true):
        cap = 100 if index % 2 else 10_000
        model.add("chat", 100, int(min(length, cap)), truncated=bool(length > cap))
    grid = predict(model, "chat", 100, None)
    assert grid[GRID.index(0.5)] == pytest.approx(np.median(true), rel=0.15)
    assert grid[GRID.index(0.9)] == pytest.approx(np.quantile(true, 0.9), rel=0.2)


def test_until_enough_is_known_the_default_stands_in():
    model = WindowLengths()
    learn(model, [5] * 7)
    assert predict(model, "chat", 100, 400) == default_grid(400)
    learn(model, [5])
    assert predict(model, "chat", 100, 400)[0] == 5


def test_prompts_of_another_length_borrow_from_their_class_and_never_from_another():
    model = WindowLengths()
    learn(model, [5] * 64, prompt=100)
    learn(model, [500] * 64, prompt=5000)
    assert predict(model, "chat", 127, 1000)[3] == 5
    assert predict(model, "chat", 5000, 1000)[3] == 500
    assert predict(model, "chat", 10, 1000)[2] in {5, 500}
    assert predict(model, "tool", 100, 1000) == default_grid(1000)


def test_the_window_follows_a_workload_that_changes():
    model = WindowLengths()
    learn(model, [5] * 600)
    learn(model, [50] * 600)
    assert predict(model, "chat", 100, None)[0] == 50


def test_the_unknown_tail_is_bounded_even_where_the_caller_allows_everything():
    model = WindowLengths()
    learn(model, [5] * 40)
    assert predict(model, "chat", 100, 1_000_000)[-1] == 10
