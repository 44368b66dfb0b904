"""Replicas that take requests and bring nothing, and those that are tried again after they were left alone."""

import pytest

from support.fleets import LIMITS, facts, fail, ready_fleet, review, run_at, serve
from tempo_api.state import EngineState


def asked(*names, tokens=0, streams=True):
    """A fleet whose first replica owes an answer, and a list of those that were given up."""
    fleet, clock = ready_fleet(*names)
    lost = []
    fleet.on_lost = lost.append
    fleet.take(names[0], tokens, streams=streams)
    return fleet, clock, lost


def test_a_replica_that_owes_streams_and_brings_nothing_is_ejected_and_what_it_owes_broken_off():
    fleet, clock, lost = asked("a", "b")
    clock.now_s += LIMITS.silent_s - 1.0
    review(fleet, clock)
    assert (fleet.ejected["a"], lost) == (False, [])
    clock.now_s += 1.0
    review(fleet, clock)
    assert (fleet.ejected["a"], lost) == (True, ["http://a"])


def test_one_that_has_shown_no_speed_yet_is_taken_to_be_as_fast_as_the_others():
    fleet, clock, lost = asked("a", "b", tokens=200)
    run_at(fleet, clock, fleet.take("b", 1000, streams=True), 100.0)
    clock.now_s += LIMITS.silent_s - 1.0
    review(fleet, clock)
    assert lost == []
    clock.now_s += 2.0
    review(fleet, clock)
    assert lost == ["http://a"]


def test_how_slow_it_seemed_while_it_hung_is_forgotten():
    fleet, clock, _ = asked("a", "b")
    for _ in range(5):
        clock.now_s += LIMITS.silent_s / 4
        review(fleet, clock)
    assert facts(fleet)["a"].tokens_per_s == facts(fleet)["b"].tokens_per_s


def test_one_that_brings_something_of_any_request_does_not_hang():
    fleet, clock, lost = asked("a", "b")
    busy = fleet.take("a", 1000, streams=True)
    for _ in range(10):
        clock.now_s += LIMITS.silent_s / 2
        fleet.produced(busy, 1)
        review(fleet, clock)
    assert (fleet.ejected["a"], lost) == (False, [])


def test_silence_counts_from_the_first_request_after_a_rest():
    fleet, clock, lost = asked("a", "b")
    serve(fleet, "b")
    clock.now_s += 3 * LIMITS.silent_s
    fleet.take("b", 0, streams=True)
    review(fleet, clock)
    assert lost == ["http://a"]


def test_whoever_has_much_to_do_may_be_silent_for_as_long_as_that_takes():
    fleet, clock, lost = asked("a", "b")
    run_at(fleet, clock, fleet.take("a", 10_000, streams=True), 100.0)  # a long prompt: 98 s are left at that speed
    clock.now_s += 90.0
    review(fleet, clock)
    assert lost == []
    clock.now_s += 20.0
    review(fleet, clock)
    assert lost == ["http://a"]


def test_whole_answers_may_take_as_long_as_they_like():
    fleet, clock, lost = asked("a", "b", streams=False)
    clock.now_s += 20 * LIMITS.silent_s
    review(fleet, clock)
    assert lost == []


@pytest.mark.parametrize(("draining", "given_up"), [(False, ["http://a"]), (True, [])])
def test_whole_answers_of_an_engine_that_is_not_well_are_given_up_but_not_while_it_drains(draining, given_up):
    fleet, clock, lost = asked("a", "b", streams=False)
    clock.now_s += LIMITS.silent_s
    for _ in range(2):
        clock.now_s += 0.3
        fleet.pushed("a", EngineState(ready=False, draining=draining))
    assert lost == given_up


def test_the_last_replica_is_not_given_up_for_its_silence():
    fleet, clock, lost = asked("a")
    clock.now_s += 20 * LIMITS.silent_s
    review(fleet, clock)
    assert (fleet.ready, lost) == ({"a": True}, [])


# -- on trial ----------------------------------------------------------------------------------------------------------


def on_trial(*names):
    """The first replica has been ejected, and let in again."""
    fleet, clock = ready_fleet(*names)
    fail(fleet, names[0])
    clock.now_s += LIMITS.out_s
    fleet.probed(names[0], ready=True)
    return fleet, clock


def test_one_that_comes_back_gets_one_request_at_a_time_until_an_answer_is_good():
    fleet, _ = on_trial("a", "b")
    changed = []
    first = fleet.take("a", 1)
    assert fleet.ready == {"a": False, "b": True}
    fleet.release(first)  # its client hung up, which says nothing
    assert fleet.ready["a"]
    second = fleet.take("a", 1)
    fleet.on_change = lambda: changed.append(fleet.ready["a"])
    fleet.answered(second, 200)
    assert changed == [True]
    fleet.take("a", 1)
    assert fleet.ready["a"]


def test_the_time_on_trial_is_no_measure_of_its_speed():
    fleet, clock = on_trial("a", "b")
    run_at(fleet, clock, fleet.take("b", 1000, streams=True), 100.0)
    fleet.pushed("a", EngineState(ready=True))
    trial = fleet.take("a", 5, streams=True)
    clock.now_s += 1.9  # nearly a window
    fleet.answered(trial, 200)
    fleet.produced(trial, 5)
    clock.now_s += 0.2
    fleet.pushed("a", EngineState(ready=True))
    assert facts(fleet)["a"].tokens_per_s == facts(fleet)["b"].tokens_per_s


def test_what_it_began_before_it_was_ejected_does_not_stand_in_its_way():
    fleet, clock = ready_fleet("a", "b")
    fleet.take("a", 1, streams=True)
    fail(fleet, "a")
    clock.now_s += LIMITS.out_s
    fleet.probed("a", ready=True)
    assert fleet.ready["a"]


def test_a_server_error_on_trial_ejects_it_again_at_once():
    fleet, _ = on_trial("a", "b")
    fleet.answered(fleet.take("a", 1), 500)
    assert fleet.ejected["a"]


@pytest.mark.parametrize("streams", [True, False])
def test_silence_on_trial_ejects_it_again_whatever_it_was_asked_for(streams):
    fleet, clock = on_trial("a", "b")
    fleet.take("a", 0, streams=streams)
    clock.now_s += LIMITS.silent_s
    review(fleet, clock)
    assert fleet.ejected["a"]
