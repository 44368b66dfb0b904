"""Stages, sub-deadlines and ends of programs."""

from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tempo_core.gain import Outcome
from tempo_core.programs import Programs
from tempo_core.slo import Objectives, Pattern, SLOClass

PER_STAGE = SLOClass("agent", Pattern.COLLECTIVE, Objectives(per_stage_s=10.0))
END_TO_END = SLOClass("agent", Pattern.COLLECTIVE, Objectives(end_to_end_s=60.0))


def answered(tokens=20, prompt=10):
    return Outcome("agent", prompt, tokens, nan, nan, nan, 0.0, attained=True)


def refused():
    return answered(tokens=0)


def test_calls_in_flight_together_share_a_stage_and_a_call_after_they_ended_opens_the_next():
    programs = Programs()
    first, second = (programs.begin("p", PER_STAGE, now_s) for now_s in (0.0, 1.0))
    programs.end(first, answered(), 3.0)
    third = programs.begin("p", PER_STAGE, 4.0)
    programs.end(second, answered(), 5.0)
    programs.end(third, answered(), 5.0)
    fourth = programs.begin("p", PER_STAGE, 6.0)
    assert [call.stage for call in (first, second, third, fourth)] == [0, 0, 0, 1]


def test_a_stage_s_sub_deadline_is_cumulative_from_the_program_s_arrival():
    programs = Programs()
    first = programs.begin("p", PER_STAGE, 100.0)
    programs.end(first, answered(), 105.0)
    second = programs.begin("p", PER_STAGE, 106.0)
    assert (first.deadline_s, second.deadline_s) == (110.0, 120.0)
    assert second.program_arrival_s == 100.0


def test_an_end_to_end_class_has_one_deadline_whatever_the_stage():
    programs = Programs()
    assert programs.begin("p", END_TO_END, 0.0, stage=5).deadline_s == 60.0


def test_a_caller_s_program_deadline_loosens_what_the_class_grants_and_is_kept_for_later_calls():
    programs = Programs()
    first = programs.begin("p", PER_STAGE, 0.0, deadline_s=15.0)
    programs.end(first, answered(), 1.0)
    later = [programs.begin("p", PER_STAGE, 2.0, stage=stage) for stage in (0, 1, 2)]
    assert [call.deadline_s for call in (first, *later)] == [15.0, 15.0, 20.0, 30.0]


def test_a_stage_given_by_the_caller_is_taken_and_inference_goes_on_from_there():
    programs = Programs()
    first = programs.begin("p", PER_STAGE, 0.0, stage=3)
    programs.end(first, answered(), 1.0)
    assert first.stage == 3
    assert programs.begin("p", PER_STAGE, 2.0).stage == 4


def test_a_retry_of_a_call_that_brought_no_token_stays_in_its_stage():
    programs = Programs()
    programs.end(programs.begin("p", PER_STAGE, 0.0), refused(), 1.0)
    retry = programs.begin("p", PER_STAGE, 2.0)
    assert (retry.stage, retry.deadline_s) == (0, 10.0)
    programs.end(retry, answered(), 3.0)
    programs.end(programs.begin("p", PER_STAGE, 4.0), refused(), 5.0)
    assert programs.begin("p", PER_STAGE, 6.0).stage == 1


def test_the_finished_calls_gain_is_banked_with_the_next_call():
    programs = Programs()
    programs.end(programs.begin("p", PER_STAGE, 0.0), answered(tokens=20, prompt=10), 1.0)
    assert programs.begin("p", PER_STAGE, 2.0).banked_gain == 10 + 2 * 20


def test_a_program_ends_with_its_final_call_and_its_outcome_adds_the_calls_up():
    programs = Programs()
    assert programs.end(programs.begin("p", PER_STAGE, 0.0), answered(), 4.0) is None
    outcome = programs.end(programs.begin("p", PER_STAGE, 5.0, final=True), answered(), 18.0)
    assert (outcome.prompt_tokens, outcome.output_tokens, outcome.ttlt_s) == (20, 40, 18.0)
    assert outcome.attained
    assert outcome.gain == 2 * 10 + 2 * 40
    assert len(programs) == 0


def test_a_final_call_waits_for_its_siblings():
    programs = Programs()
    sibling, last = programs.begin("p", PER_STAGE, 0.0), programs.begin("p", PER_STAGE, 0.0, final=True)
    assert programs.end(last, answered(), 1.0) is None
    assert programs.end(sibling, answered(), 2.0).ttlt_s == 2.0


def test_a_late_program_keeps_the_faded_share_of_its_gain_and_attains_nothing():
    programs = Programs()
    outcome = programs.end(programs.begin("p", PER_STAGE, 0.0, final=True), answered(20, 10), 20.0)
    assert outcome.gain == pytest.approx(50 * 10.0 / 20.0)
    assert not outcome.attained


def test_a_program_whose_calls_all_failed_attains_and_earns_nothing():
    programs = Programs()
    outcome = programs.end(programs.begin("p", PER_STAGE, 0.0, final=True), refused(), 1.0)
    assert (outcome.gain, outcome.attained) == (0.0, False)


def test_an_idle_program_ends_and_its_idle_time_is_not_held_against_it():
    programs = Programs(idle_s=30.0)
    programs.end(programs.begin("p", PER_STAGE, 0.0), answered(), 5.0)
    assert programs.expire(34.9) == []
    [outcome] = programs.expire(35.0)
    assert (outcome.ttlt_s, outcome.attained) == (5.0, True)


def test_a_program_with_a_call_in_flight_never_expires():
    programs = Programs(idle_s=1.0, capacity=1)
    calls = [programs.begin(name, PER_STAGE, 0.0) for name in "abc"]
    assert programs.expire(1e6) == []
    assert [programs.end(call, answered(), 1e6) for call in calls] == [None, None, None]
    assert len(programs.expire(1e6)) == 2


def test_beyond_capacity_the_longest_idle_programs_go_first():
    programs = Programs(capacity=2)
    for now_s, name in enumerate("abcd"):
        programs.end(programs.begin(name, PER_STAGE, now_s), answered(tokens=now_s + 1), now_s)
    assert [outcome.output_tokens for outcome in programs.expire(4.0)] == [1, 2]
    assert len(programs) == 2


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.booleans(),
            st.booleans(),
            st.integers(0, 3),
            st.one_of(st.none(), st.integers(0, 9)),
        ),
        max_size=60,
    )
)
def test_programs_stay_bounded_and_every_begun_call_can_end(steps):
    programs, live, now_s = Programs(idle_s=5.0, capacity=2), [], 0.0
    for name, ends, final, tokens, stage in steps:
        now_s += 1.0
        if ends and live:
            programs.end(live.pop(0), answered(tokens), now_s)
        else:
            call = programs.begin(name, PER_STAGE, now_s, stage=stage, final=final)
            assert call.program_arrival_s <= now_s
            assert call.deadline_s < inf
            live.append(call)
        programs.expire(now_s)
        assert len(programs) <= 2 + len({call.program for call in live})
    for call in live:
        programs.end(call, answered(), now_s)
    programs.expire(now_s + 5.0)
    assert len(programs) == 0
