import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.sim import call
from tempo_core.lengths import GRID, default_grid, valid_grid
from tempo_sim.lengths import OracleLengths, WindowLengths, answer_tokens

LENGTHS = st.lists(st.integers(1, 300), min_size=32, max_size=700)


def taught(tokens, prompt=10, cap=1000, slo_class="chat"):
    model = WindowLengths()
    for count in tokens:
        model.learn(slo_class, call(prompt, count, cap=cap))
    return model


def test_where_nothing_is_known_the_default_stands_in():
    assert WindowLengths().predict("chat", call(10, 5, cap=200)) == default_grid(200)


@given(LENGTHS)
def test_a_quantile_is_the_response_that_as_many_of_all_and_one_more_do_not_exceed(tokens):
    grid = taught(tokens).predict("chat", call(10, 5, cap=10_000))
    latest = sorted(tokens[-512:])
    for p, bound in zip(GRID, grid, strict=True):
        if bound <= latest[-1]:
            exceeded = sum(count < bound for count in latest)
            assert exceeded < p * (len(latest) + 1) + 1e-6 <= sum(count <= bound for count in latest) + 2e-6
        else:  # the sample is too small for this one
            assert p * (len(latest) + 1) > len(latest)


def test_quantiles_cover_as_many_responses_as_they_promise():
    random = np.random.default_rng(1)
    model = taught(random.integers(1, 200, 512).tolist())
    grid = model.predict("chat", call(10, 5, cap=1000))
    later = random.integers(1, 200, 5000)
    for p, bound in zip(GRID, grid, strict=True):
        assert np.mean(later <= bound) == pytest.approx(p, abs=0.05)


def test_an_unfamiliar_prompt_falls_back_on_its_class():
    model = taught(range(1, 101))
    assert model.predict("chat", call(5000, 5, cap=64)) == model.predict("chat", call(10, 5, cap=64))
    assert model.predict("tool", call(10, 5, cap=64)) == default_grid(64)


def test_prompts_of_another_size_are_learned_apart():
    model = taught([10] * 40)
    for _ in range(40):
        model.learn("chat", call(2000, 500, cap=1000))
    assert model.predict("chat", call(10, 5, cap=1000))[2] == 10.0
    assert model.predict("chat", call(2000, 5, cap=1000))[2] == 500.0


def test_what_was_cut_by_its_cap_would_have_been_longer():
    model = taught([*range(1, 21), *[64] * 20], cap=64)
    assert model.predict("chat", call(10, 5, cap=64))[-1] == 64.0
    assert model.predict("chat", call(10, 5, cap=4000))[-1] > 64.0


@given(LENGTHS, st.integers(1, 2000))
def test_a_prediction_is_a_grid_that_the_core_takes(tokens, cap):
    grid = taught(tokens).predict("chat", call(10, 5, cap=cap))
    assert valid_grid(grid)
    assert grid[-1] <= cap


def test_the_oracle_knows_the_truth_and_the_cap():
    assert OracleLengths().predict("chat", call(10, 37, cap=64)) == (37.0,) * len(GRID)
    assert OracleLengths().predict("chat", call(10, 99, cap=64)) == (64.0,) * len(GRID)
    assert answer_tokens(call(10, 99, cap=64)) == 64
