from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_vllm.steps import EARLY_SHARE, Pacer, StepLoad, StepMeter, step_load


def test_the_first_step_begins_with_a_pass():
    assert Pacer().due(0.0, 20)


def test_without_changes_a_pass_is_due_once_a_frame():
    pacer = Pacer()
    pacer.passed(0.0, 0.0)
    due = []
    for step in range(1, 61):
        if pacer.due(step * 0.01, 20):
            due.append(step)
            pacer.passed(step * 0.01, step * 0.01)
    assert due == [20, 40, 60]


def test_a_change_makes_a_pass_due_at_once_while_passes_are_cheap():
    pacer = Pacer()
    pacer.passed(0.0, 0.001)
    pacer.changed()
    assert not pacer.due(0.019, 20)
    assert pacer.due(0.021, 20)


@given(st.lists(st.floats(1e-5, 0.05), min_size=5, max_size=60))
def test_early_passes_never_take_more_than_their_share_of_the_time(costs):
    pacer, now_s, spent_s = Pacer(), 0.0, 0.0
    for cost_s in costs:
        pacer.changed()
        while not pacer.due(now_s, 10**9):
            now_s += 0.005
        assert spent_s <= EARLY_SHARE * now_s + 1e-9
        pacer.passed(now_s, now_s + cost_s)
        spent_s += cost_s
        now_s += cost_s


def line(load):
    return 0.01 + 0.0004 * load.decoding + 0.0002 * load.prefilled + 1e-7 * load.context


LOADS = [StepLoad(index % 30 + 1, index * 37 % 400, index * 911 % 30_000) for index in range(400)]


def test_a_synchronous_engines_steps_are_timed_from_their_scheduling():
    meter, now_s = StepMeter(), 0.0
    for load in LOADS:
        step = object()
        now_s += 5.0  # idle
        meter.began(step, now_s, load)
        now_s += line(load)
        meter.ended(step, now_s)
    assert meter.model.seconds(16, 256, 8000) == pytest.approx(line(StepLoad(16, 256, 8000)), rel=0.02)


def test_a_pipelined_engines_steps_are_timed_from_the_end_of_the_one_before():
    meter, now_s = StepMeter(), 0.0
    steps = [(object(), load) for load in LOADS]
    meter.began(steps[0][0], now_s, steps[0][1])
    for (step, load), following in pairwise(steps):
        meter.began(following[0], now_s, following[1])
        now_s += line(load)
        meter.ended(step, now_s)
    assert meter.model.seconds(16, 256, 8000) == pytest.approx(line(StepLoad(16, 256, 8000)), rel=0.02)


def test_steps_that_computed_nothing_or_never_ended_teach_nothing_and_take_no_room():
    meter = StepMeter()
    before = meter.model
    for index in range(1000):
        meter.began(object(), float(index), StepLoad(1, 0, 10))
    idle = object()
    meter.began(idle, 0.0, StepLoad(0, 0, 0))
    meter.ended(idle, 9.0)
    meter.ended(object(), 10.0)
    assert meter.model == before
    assert len(meter._in_flight) <= 64


def test_the_load_of_a_step_counts_drafts_as_decoding_and_the_rest_as_prefill():
    step = SimpleNamespace(
        num_scheduled_tokens={"prompt": 100, "stream": 1, "other": 1, "drafted": 4},
        total_num_scheduled_tokens=106,
        scheduled_spec_decode_tokens={"drafted": [7, 8, 9]},
        scheduled_new_reqs=[SimpleNamespace(num_computed_tokens=32)],
        scheduled_cached_reqs=SimpleNamespace(num_computed_tokens=[10, 20, 30]),
    )
    assert step_load(step) == StepLoad(decoding=3, prefilled=100, context=92)
