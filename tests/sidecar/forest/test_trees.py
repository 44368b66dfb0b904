from dataclasses import replace

import numpy as np
import pytest

from support.lengths import sampled, workload
from tempo_core.lengths import GRID
from tempo_sidecar.forest.features import features
from tempo_sidecar.forest.grow import decode_grown, encode_grown, fit, grow
from tempo_sidecar.forest.trees import Forest, decode_forest, encode_forest

ROWS = [features(query) for query, _ in workload(40, seed=9)]


def test_it_says_what_the_library_says():
    records = sampled(workload(500, seed=2)).records()
    forest = grow(records).forest
    order = np.lexsort((records.truncated, records.tokens))
    library = fit(records.rows[order], np.log1p(records.tokens[order].astype(float)), seed=0)
    theirs = np.expm1(library.predict(ROWS, quantiles=list(GRID), weighted_leaves=True, interpolation="higher"))
    ours = np.array([forest.quantiles(row) for row in ROWS])
    assert np.isclose(ours, theirs, rtol=1e-6).mean() > 0.95
    assert ours == pytest.approx(theirs, rel=0.1)


def stump(tokens, ended):
    """A forest of one leaf."""
    n = len(tokens)
    zero = np.zeros(1, dtype=np.int64)
    return Forest(
        roots=zero,
        feature=zero,
        threshold=np.zeros(1),
        child=np.zeros(2, dtype=np.int64),
        start=np.array([0, n]),
        members=np.arange(n),
        tokens=np.array(tokens, dtype=float),
        ended=np.array(ended),
        depth=0,
    )


def test_one_leaf_is_its_responses_own_quantiles():
    found = stump(range(1, 101), [True] * 100).quantiles(ROWS[0])
    assert found.tolist() == [10, 25, 50, 75, 90, 95, 99]


def test_responses_that_were_cut_count_as_longer_than_that():
    found = stump(range(1, 101), [True] * 50 + [False] * 50).quantiles(ROWS[0])
    assert found.tolist() == [10, 25, 50] + [np.inf] * 4


def test_cut_responses_in_the_sample_do_not_pull_the_prediction_down():
    truth = list(workload(800, seed=4, max_tokens=10_000))
    cut = [(replace(q, max_tokens=200 if i % 2 else 10_000), n) for i, (q, n) in enumerate(truth)]
    # The features know the cap, so both are asked as one that is not capped.
    full, censored = (grow(sampled(pairs).records()).forest for pairs in (truth, cut))
    medians = np.array([[f.quantiles(features(q))[2] for f in (full, censored)] for q, _ in truth[:200]])
    assert np.median(medians[:, 1] / medians[:, 0]) == pytest.approx(1.0, abs=0.1)


def test_a_forest_survives_the_way_through_bytes(grown):
    again = decode_grown(encode_grown(grown))
    assert all((again.forest.quantiles(row) == grown.forest.quantiles(row)).all() for row in ROWS)
    assert (again.residuals["chat"].ratios == grown.residuals["chat"].ratios).all()


@pytest.mark.parametrize(
    "change",
    [
        {"child": np.array([0, 7])},
        {"feature": np.array([10_000])},
        {"roots": np.array([-1])},
        {"members": np.array([0, 5])},
        {"start": np.array([0, 9])},
        {"tokens": np.array([2.0, 1.0])},
        {"tokens": np.array([1.0, np.nan])},
        {"depth": 10**9},
    ],
)
def test_a_forest_that_leads_out_of_its_arrays_is_refused(change):
    sound = stump([1, 2], [True, True])
    assert decode_forest(encode_forest(sound)).depth == 0
    with pytest.raises(ValueError, match="do not fit"):
        decode_forest(encode_forest(replace(sound, **change)))


def test_the_residuals_are_those_of_trees_that_had_not_seen_the_response():
    ratios = grow(sampled(workload(800, seed=1)).records()).residuals["chat"].ratios
    assert ratios.shape == (256, len(GRID))
    covered = np.mean(ratios <= 1.0, axis=0)
    assert covered[GRID.index(0.95)] == pytest.approx(0.95, abs=0.03)
    # Lengths are whole numbers: of the shortest, many are just as long as the quantile.
    assert 0.45 < covered[GRID.index(0.5)] < 0.65


def test_a_class_too_rare_to_tell_is_left_out():
    pairs = [*workload(200, seed=5), *workload(20, seed=6, slo_class="tool")]
    assert set(grow(sampled(pairs).records()).residuals) == {"chat"}
