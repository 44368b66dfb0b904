import pytest

from tempo_sim.aggregate import against, estimate, over_seeds


def row(policy: str, seed: int, gain: float | None) -> dict:
    return {"policy": policy, "seed": seed, "service_gain": gain, "load": "1"}


def test_the_margin_is_students_at_95_percent():
    made = estimate([1.0, 2.0, 3.0])
    assert made.mean == 2.0
    assert made.margin == pytest.approx(4.303 / 3**0.5, rel=1e-3)


def test_one_seed_says_nothing_of_chance():
    assert estimate([5.0]).margin == 0.0


def test_more_seeds_than_the_table_has_are_nearly_normal():
    made = estimate([0.0, 1.0] * 20)
    assert made.margin == pytest.approx(1.96 * 0.5064 / 40**0.5, rel=1e-3)


def test_a_figure_is_taken_over_the_rows_with_its_labels_only():
    rows = [row("a", 1, 2.0), row("a", 2, 4.0), row("b", 1, 100.0), row("a", 3, None)]
    assert over_seeds(rows, "service_gain", policy="a").mean == 3.0
    assert over_seeds(rows, "service_gain", policy="c") is None


def test_ratios_are_taken_seed_by_seed_so_that_what_both_had_in_common_cancels_out():
    rows = [row("a", 1, 1.0), row("a", 2, 100.0), row("b", 1, 2.0), row("b", 2, 200.0)]
    made = against(rows, "service_gain", "b", "a")
    assert made.mean == 2.0
    assert made.margin == 0.0


def test_there_is_no_ratio_to_nothing():
    assert against([row("a", 1, 0.0), row("b", 1, 1.0)], "service_gain", "b", "a") is None
