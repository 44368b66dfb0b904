import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_sim.pacing import Pacer, pass_s
from tempo_vllm import steps as plugin

EVENTS = st.lists(st.tuples(st.floats(0.0, 0.05), st.booleans(), st.integers(1, 3000)), min_size=1, max_size=80)


@given(EVENTS, st.integers(1, 30))
def test_passes_are_due_when_the_plug_in_says_so(events, frame_steps):
    ours, theirs, now_s = Pacer(frame_steps), plugin.Pacer(), 0.0
    for wait_s, changed, requests in events:
        now_s += wait_s
        if changed:
            ours.changed = True
            theirs.changed()
        due = ours.due(now_s)
        assert due == theirs.due(now_s, frame_steps)
        if due:
            ours.passed(now_s, requests)
            theirs.passed(now_s, now_s + pass_s(requests))
        assert ours.early_from_s == pytest.approx(theirs._early_from_s)


def test_the_share_of_early_passes_is_the_plug_ins():
    from tempo_sim.pacing import EARLY_SHARE

    assert EARLY_SHARE == plugin.EARLY_SHARE


def test_a_pass_takes_a_millisecond_at_256_requests_and_five_at_2048():
    assert pass_s(256) == pytest.approx(1e-3, rel=0.01)
    assert pass_s(2048) == pytest.approx(5e-3, rel=0.01)


def test_the_steps_that_are_free_end_with_the_frame():
    pacer = Pacer(3)
    assert pacer.due(0.0)
    pacer.passed(0.0, 1)
    assert pacer.free_steps == 2
    assert not pacer.due(0.1)
    assert pacer.free_steps == 1
    assert not pacer.due(0.2)
    assert pacer.free_steps == 0
    assert pacer.due(0.3)
