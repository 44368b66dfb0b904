import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_core.lengths import GRID, valid_grid
from tempo_sidecar.forest.calibration import WINDOW, Calibration

RAW = np.quantile(np.random.default_rng(0).lognormal(4.0, 0.5, 100_000), GRID)
LENGTHS = st.lists(st.tuples(st.floats(1.0, 1e7), st.booleans()), max_size=150)


def after(lengths, truncated=False):
    calibration = Calibration()
    for length in lengths:
        calibration.add(RAW, length, truncated=truncated)
    return calibration


def drifted(count, scale, seed=1):
    return scale * np.random.default_rng(seed).lognormal(4.0, 0.5, count)


@given(LENGTHS, st.lists(st.floats(1.0, 1e6), min_size=len(GRID), max_size=len(GRID)).map(sorted))
def test_a_corrected_grid_is_a_valid_one_whatever_happened(seen, raw):
    calibration = Calibration()
    for length, truncated in seen:
        calibration.add(RAW, length, truncated=truncated)
    assert valid_grid(calibration.corrected(np.array(raw)).tolist())


@pytest.mark.parametrize("scale", [0.2, 0.5, 2.0, 10.0])
def test_after_a_drift_every_quantile_covers_its_share_again(scale):
    grids = [after(drifted(WINDOW, scale, seed)).corrected(RAW) for seed in range(10)]
    fresh = drifted(20_000, scale, seed=99)
    assert [np.mean([fresh <= grid[point] for grid in grids]) for point in range(len(GRID))] == pytest.approx(
        GRID, abs=0.02
    )


def test_a_drift_upwards_shows_before_half_the_window_has_seen_it():
    calibration = after(drifted(WINDOW, 1.0, seed=2))
    for length in drifted(WINDOW // 4, 3.0, seed=3):
        calibration.add(RAW, length, truncated=False)
    bound = calibration.corrected(RAW)[GRID.index(0.95)]
    assert np.mean(drifted(5000, 3.0, seed=4) <= RAW[GRID.index(0.95)]) < 0.4
    assert np.mean(drifted(5000, 3.0, seed=4) <= bound) > 0.7


def test_chance_is_rarely_corrected():
    factors = np.array([after(drifted(WINDOW, 1.0, seed)).factors for seed in range(20)])
    assert np.mean(factors == 1.0) > 0.9


def test_a_handful_of_responses_is_no_evidence():
    assert (after([1e6] * 63).factors == 1.0).all()


def test_responses_cut_by_their_cap_never_shrink_the_bound():
    assert (after([1.0] * WINDOW, truncated=True).factors == 1.0).all()


def test_residuals_of_a_new_forest_are_where_it_begins():
    ratios = [(np.full(len(GRID), 2.0), False)] * WINDOW
    assert Calibration(ratios).factors == pytest.approx(2.0)
