"""What a length grid says of the tokens still to come."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_core.lengths import DEFAULT_TOKENS, GRID, UsualLengths, curve, default_grid, remaining, valid_grid

grids = st.lists(st.floats(1.0, 4096.0), min_size=len(GRID), max_size=len(GRID)).map(lambda v: tuple(sorted(v)))
quantiles = st.sampled_from([0.5, 0.9, 0.95, 0.99])


def look(grid: tuple[float, ...], generated: float, quantile: float = 0.95) -> tuple[float, float]:
    bound, mean = remaining(np.array([curve(grid)]), np.array([float(generated)]), quantile)
    return float(bound[0]), float(mean[0])


def test_before_the_first_token_the_bound_is_the_grids_own_quantile() -> None:
    grid = tuple(100.0 * p for p in GRID)
    assert look(grid, 0, 0.95)[0] == pytest.approx(95.0, rel=1e-3)
    assert look(grid, 0, 0.5)[0] == pytest.approx(50.0, rel=1e-3)


def test_the_bound_is_the_quantile_of_what_remains() -> None:
    grid = tuple(100.0 * p for p in GRID)  # uniform on 0 to 100
    bound, mean = look(grid, 50, 0.5)
    assert bound == pytest.approx(75.0, rel=1e-2)
    assert mean == pytest.approx(25.0, rel=0.1)


def test_the_mean_is_that_of_samples_from_the_same_distribution() -> None:
    rng = np.random.default_rng(7)
    samples = rng.exponential(100.0, 200_000)
    grid = tuple(np.quantile(samples, GRID))
    for generated in (0, 50, 150):
        rest = samples[samples > generated] - generated
        assert look(grid, generated)[1] == pytest.approx(rest.mean(), rel=0.12)


def test_coverage_holds_while_the_grid_still_has_points_ahead() -> None:
    rng = np.random.default_rng(11)
    samples = rng.lognormal(4.0, 0.8, 100_000)
    grid = tuple(np.quantile(samples, GRID))
    for generated in (0, 20, 60, 150):
        rest = samples[samples > generated]
        assert (rest <= look(grid, generated, 0.9)[0]).mean() == pytest.approx(0.9, abs=0.04)


@given(grids, st.floats(0, 20_000), quantiles)
def test_the_bound_is_never_below_one_more_token(grid: tuple[float, ...], generated: float, quantile: float) -> None:
    bound, mean = look(grid, generated, quantile)
    assert bound >= generated + 1.0
    assert np.isfinite(bound)
    assert 1.0 <= mean < np.inf


@given(grids, st.floats(0, 10_000), st.floats(0, 500), quantiles)
def test_the_bound_never_falls_as_tokens_come(grid: tuple[float, ...], at: float, more: float, q: float) -> None:
    assert look(grid, at + more, q)[0] >= look(grid, at, q)[0] - 1e-6 * at - 1e-6


@given(grids, st.floats(0, 5_000))
def test_a_higher_quantile_never_gives_a_lower_bound(grid: tuple[float, ...], generated: float) -> None:
    bounds = [look(grid, generated, q)[0] for q in (0.5, 0.9, 0.99)]
    assert bounds == sorted(bounds)


@given(st.lists(st.tuples(grids, st.floats(0, 5_000)), min_size=1, max_size=20))
def test_every_request_is_judged_alone(rows: list[tuple[tuple[float, ...], float]]) -> None:
    bound, mean = remaining(np.array([curve(g) for g, _ in rows]), np.array([n for _, n in rows]), 0.95)
    for index, (grid, generated) in enumerate(rows):
        assert (bound[index], mean[index]) == pytest.approx(look(grid, generated))


def test_a_grid_of_one_length_still_orders_its_tail() -> None:
    same = (64.0,) * len(GRID)
    assert look(same, 0)[0] == pytest.approx(64.0, abs=0.1)
    assert look(same, 64)[0] == pytest.approx(65.0, abs=3.0)


def test_the_default_reaches_the_cap_for_one_response_in_a_hundred_and_means_a_fifth_of_it() -> None:
    assert valid_grid(default_grid(8))
    assert default_grid(8)[-1] == pytest.approx(8.0)
    assert default_grid(100_000)[-1] == pytest.approx(DEFAULT_TOKENS)
    assert look(default_grid(500), 0)[1] == pytest.approx(500 / np.log(100), rel=0.05)


@pytest.mark.parametrize(
    "bad", [(), (1.0,) * 6, (0.0,) * 7, (-1.0,) * 7, (7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0), (*(1.0,) * 6, float("inf"))]
)
def test_a_grid_that_is_none_is_refused(bad: tuple[float, ...]) -> None:
    assert not valid_grid(bad)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 100_000))))
def test_a_usual_length_is_the_median_of_a_tenant_s_latest_or_of_everybody_s(seen: list[tuple[str, int]]) -> None:
    lengths = UsualLengths()
    for tenant, tokens in seen:
        lengths.learn("chat", tenant, tokens)
    for tenant in "abc":
        latest = [tokens for of, tokens in seen if of == tenant] or [tokens for _, tokens in seen] or [256]
        assert lengths.usual("chat", tenant) == np.median(latest[-31:])
    assert lengths.usual("tool", "a") == 256.0


def test_a_flood_of_short_responses_changes_nobody_else_s_usual_length() -> None:
    lengths = UsualLengths()
    for tokens in (400, 16, 16, 16, 16):
        lengths.learn("tool", "flood" if tokens == 16 else "honest", tokens)
    assert lengths.usual("tool", "honest") == 400.0


def test_of_many_tenants_those_heard_of_last_are_remembered() -> None:
    lengths = UsualLengths()
    for tenant in range(10_001):
        lengths.learn("chat", str(tenant), tenant)
    assert len(lengths) == 10_000
    assert lengths.usual("chat", "1") == 1.0
    assert lengths.usual("chat", "0") == np.median(range(9_970, 10_001))
