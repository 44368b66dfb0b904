import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from support.lengths import pinball, workload
from support.serving import eventually
from tempo_core.lengths import GRID, valid_grid
from tempo_sidecar.forest.grow import grow
from tempo_sidecar.forest.model import ForestLengths
from tempo_sidecar.forest.trainer import TrainingError
from tempo_sidecar.lengths import LengthQuery, WindowLengths

BOUND = GRID.index(0.95)


async def grow_here(records):
    """A trainer without a process of its own."""
    return grow(records)


async def never(records):
    raise TrainingError("no trees today")


def lengths(trainer=grow_here, **options):
    return ForestLengths(np.random.default_rng(0), trainer=trainer, **{"pace_s": 0.01} | options)


def learn(model, pairs):
    """Serve and complete; the predictions that were made."""
    made = []
    for query, length in pairs:
        prediction = model.predict(query)
        made.append((prediction.grid, length))
        model.learn(prediction, min(length, query.max_tokens), truncated=length > query.max_tokens)
    return made


def read(model, name):
    metrics = {metric.name: metric.samples for metric in model.metrics()}
    return sum(sample.value for sample in metrics[name])


@asynccontextmanager
async def trained(pairs, **options):
    model = lengths(**options)
    learn(model, pairs)
    async with model.running():
        await eventually(lambda: read(model, "tempo_sidecar_length_trainings") > 0, timeout_s=30)
        yield model


def covered(made):
    return np.mean([length <= grid[BOUND] for grid, length in made])


async def test_it_beats_the_window_where_the_prompt_says_how_long_the_answer_will_be():
    async with trained(workload(800, seed=1)) as model:
        window = WindowLengths()
        learn(window, workload(800, seed=1))
        fresh = list(workload(400, seed=2))
        forest_loss = np.mean([pinball(model.predict(query).grid, length) for query, length in fresh])
        window_loss = np.mean([pinball(window.predict(query).grid, length) for query, length in fresh])
    assert forest_loss < 0.5 * window_loss


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
async def test_coverage_is_nominal_again_after_the_lengths_have_drifted(scale):
    async with trained(workload(800, seed=1), pace_s=60.0) as model:
        learn(model, workload(256, seed=2, scale=scale))
        made = learn(model, workload(600, seed=3, scale=scale))
        assert read(model, "tempo_sidecar_length_trainings") == 1
    assert covered(made) == pytest.approx(0.95, abs=0.03)


async def test_a_forest_grown_during_a_drift_is_not_corrected_twice():
    async with trained(workload(400, seed=1)) as model:
        learn(model, workload(600, seed=2, scale=3.0))
        await eventually(lambda: read(model, "tempo_sidecar_length_trainings") == 2, timeout_s=30)
        made = learn(model, workload(300, seed=3, scale=3.0))
    assert covered(made) == pytest.approx(0.95, abs=0.04)


def test_before_anything_is_learned_it_says_what_the_window_says():
    model, window = lengths(never), WindowLengths()
    for query, length in workload(100, seed=1):
        assert model.predict(query).grid == window.predict(query).grid
        for each in (model, window):
            each.learn(each.predict(query), length, truncated=False)


async def test_a_class_too_rare_for_the_forest_is_left_to_the_window():
    async with trained([*workload(200, seed=1), *workload(40, seed=2, slo_class="tool")]) as model:
        (query, _), *_ = workload(1, seed=3, slo_class="tool")
        assert model.predict(query).raw is None
        assert model.predict(replace(query, slo_class="chat")).raw is not None
        assert valid_grid(model.predict(replace(query, slo_class="nobody's")).grid)


async def test_serving_goes_on_while_the_trainer_fails_and_it_is_tried_again_ever_more_rarely(caplog):
    tried = []

    async def failing(records):
        tried.append(asyncio.get_running_loop().time())
        await never(records)

    model = lengths(failing)
    learn(model, workload(200, seed=1))
    async with model.running():
        await eventually(lambda: len(tried) >= 5, timeout_s=10)
        assert valid_grid(next(iter(learn(model, workload(1, seed=2))))[0])
    gaps = np.diff(tried)
    assert gaps[3] > 2 * gaps[0]
    assert read(model, "tempo_sidecar_length_training_failures") >= 5
    assert "no trees today" in caplog.text


async def test_the_forest_that_is_there_outlives_a_trainer_that_hangs():
    grown = asyncio.Event()

    async def once(records):
        if grown.is_set():
            await asyncio.sleep(3600)  # hangs, until it is cancelled
        grown.set()
        return grow(records)

    async with trained(workload(300, seed=1), trainer=once) as model:
        learn(model, workload(300, seed=2))
        (query, _), *_ = workload(1, seed=3)
        assert model.predict(query).raw is not None


async def test_a_few_completions_are_not_worth_a_new_forest():
    async with trained(workload(400, seed=1)) as model:
        learn(model, workload(50, seed=2))
        await asyncio.sleep(0.1)  # many paces: nothing announces that no forest is grown
        assert read(model, "tempo_sidecar_length_trainings") == 1


async def test_predictions_keep_to_the_callers_cap_and_stay_valid():
    async with trained(workload(400, seed=1, max_tokens=300)) as model:
        for query, _ in workload(50, seed=2):
            for cap in (None, 0, 1, 50, 10**9):
                grid = model.predict(replace(query, max_tokens=cap)).grid
                assert valid_grid(grid)
                assert cap is None or max(grid) <= max(cap, 1)


async def test_garbage_is_predicted_and_learned_like_everything_else():
    async with trained(workload(400, seed=1)) as model:
        bodies = [None, {"messages": 3}, {"prompt": "\x00" * 9999}, {"messages": [{"content": [[[["a"]]]]}]}]
        for body in bodies:
            prediction = model.predict(LengthQuery("chat", -5, 10**12, -1, body))
            assert valid_grid(prediction.grid)
            model.learn(prediction, 10**12, truncated=False)
        (query, _), *_ = workload(1, seed=2)
        assert valid_grid(model.predict(query).grid)


async def test_what_was_learned_is_there_after_a_restart(tmp_path):
    async with trained(workload(400, seed=1), state_dir=tmp_path):
        pass
    after = lengths(never, state_dir=tmp_path)
    async with after.running():
        assert read(after, "tempo_sidecar_length_sample") == 400
        (query, _), *_ = workload(1, seed=2)
        (window,) = learn(after, [(query, 1)])
        assert window[0][2] == pytest.approx(np.median([length for _, length in workload(400, seed=1)]), rel=0.2)
    regrown = lengths(state_dir=tmp_path)
    async with regrown.running():
        await eventually(lambda: regrown.predict(query).raw is not None, timeout_s=30)


async def test_completions_are_kept_while_it_runs_and_not_only_at_the_end(tmp_path):
    model = lengths(never, state_dir=tmp_path)
    async with model.running():
        learn(model, workload(3, seed=1))
        await eventually((tmp_path / "lengths.msgpack").exists)


async def test_a_damaged_history_is_a_cold_start(tmp_path):
    (tmp_path / "lengths.msgpack").write_bytes(b"garbage")
    model = lengths(state_dir=tmp_path)
    async with model.running():
        assert read(model, "tempo_sidecar_length_sample") == 0


async def test_no_prompt_is_ever_logged(caplog):
    caplog.set_level(logging.DEBUG)
    async with trained(workload(200, seed=1)):
        pass
    assert "bridges" not in caplog.text
