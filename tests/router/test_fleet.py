"""The bookkeeping about replicas."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.fleets import LIMITS, VirtualClock, facts, ready_fleet, run_at
from tempo_api.state import EngineState
from tempo_core.prefixes import BLOCK_TOKENS
from tempo_core.routing import candidates
from tempo_core.steptime import StepTime
from tempo_router.fleet import LONGEST_MEMORY, Fleet
from tempo_router.member import PROBES_MISSED, SAMPLE_S


def test_a_replica_takes_no_request_before_its_first_good_probe():
    fleet = Fleet({"a": "http://a"}, VirtualClock())
    assert not facts(fleet)["a"].ready
    fleet.probed("a", ready=True)
    assert facts(fleet)["a"].ready


def test_work_is_outstanding_until_its_tokens_have_come_or_the_request_ends():
    fleet, _ = ready_fleet("a", "b")
    first, second = fleet.take("a", 100), fleet.take("a", 10)
    assert (facts(fleet)["a"].outstanding_tokens, facts(fleet)["b"].outstanding_tokens) == (110, 0)
    fleet.produced(first, 95)
    assert facts(fleet)["a"].outstanding_tokens == 15
    fleet.produced(first, 95)  # more than expected
    assert facts(fleet)["a"].outstanding_tokens == 10
    fleet.release(second)
    assert (facts(fleet)["a"].outstanding_tokens, facts(fleet)["a"].in_flight) == (0, 1)


def test_a_replica_that_says_it_is_not_ready_is_out_at_once():
    fleet, _ = ready_fleet("a")
    fleet.probed("a", ready=False)
    assert not fleet.ready["a"]
    fleet.pushed("a", EngineState(ready=True))
    assert fleet.ready["a"]
    fleet.pushed("a", EngineState(draining=True))
    assert not fleet.ready["a"]


def test_speed_is_measured_over_a_window_and_smoothed():
    fleet, clock = ready_fleet("a")
    ticket = fleet.take("a", 1000)
    run_at(fleet, clock, ticket, 100.0)
    assert fleet.tokens_per_s["a"] == pytest.approx(100.0)
    run_at(fleet, clock, ticket, 200.0)
    assert 100.0 < fleet.tokens_per_s["a"] < 200.0


def test_a_replica_with_little_to_do_is_not_taken_for_a_slow_one():
    fleet, clock = ready_fleet("a")
    tickets = [fleet.take("a", 1000) for _ in range(8)]
    run_at(fleet, clock, tickets[0], 800.0)
    for ticket in tickets[1:]:
        fleet.release(ticket)
    run_at(fleet, clock, tickets[0], 100.0)
    assert fleet.tokens_per_s["a"] == pytest.approx(800.0)


def test_a_replica_that_brings_less_under_the_same_load_is_slower():
    fleet, clock = ready_fleet("a")
    ticket = fleet.take("a", 1000)
    run_at(fleet, clock, ticket, 100.0)
    run_at(fleet, clock, ticket, 40.0)
    assert 40.0 < fleet.tokens_per_s["a"] < 100.0


def test_a_replica_s_own_word_on_its_speed_counts_because_other_routers_keep_it_busy_too():
    fleet, clock = ready_fleet("a")
    fleet.pushed("a", EngineState(ready=True, in_flight=9, tokens_per_s=900.0))
    clock.now_s += SAMPLE_S
    fleet.pushed("a", EngineState(ready=True, in_flight=9, tokens_per_s=900.0))
    assert fleet.tokens_per_s["a"] == pytest.approx(900.0)


def test_a_program_is_where_its_last_call_went():
    fleet, _ = ready_fleet("a", "b")
    for name in "ab":
        fleet.take(name, 1, "p")
        assert {replica.name for replica in fleet.candidates("p") if replica.holds_program} == {name}
    assert not any(replica.holds_program for replica in fleet.candidates())


def test_the_memory_of_programs_is_bounded():
    fleet, _ = ready_fleet("a")
    for index in range(LONGEST_MEMORY + 10):
        fleet.release(fleet.take("a", 1, f"p{index}"))
    assert len(fleet._homes) == LONGEST_MEMORY


def test_replicas_that_stay_keep_what_is_known_of_them_and_new_ones_start_afresh():
    fleet, _ = ready_fleet("a", "b")
    ticket = fleet.take("a", 100)
    fleet.replace({"a": "http://a/", "c": "http://c"})
    assert fleet.ready == {"a": True, "c": False}
    assert fleet.in_flight[ticket.replica] == 1


def test_a_request_at_a_replica_that_is_gone_ends_without_a_trace():
    fleet, _ = ready_fleet("a")
    ticket = fleet.take("a", 100)
    fleet.replace({"a": "http://elsewhere"})
    fleet.produced(ticket, 10)
    fleet.answered(ticket, 200)
    fleet.failed("b")
    fleet.release(ticket)
    assert (fleet.in_flight, fleet.ready) == ({"a": 0}, {"a": False})
    assert ticket.url == "http://a"


# -- what replicas push ------------------------------------------------------------------------------------------------


def test_what_a_replica_pushes_is_what_the_choice_sees():
    fleet, _ = ready_fleet("a")
    load = {"in_flight": 7, "waiting": 2, "places": 8, "cache_used": 0.5}
    fleet.pushed("a", EngineState(ready=True, ranks=True, step_time=StepTime(base_s=0.02), **load))
    seen = facts(fleet)["a"]
    assert (seen.in_flight, seen.places, seen.waiting, seen.cache_used) == (7, 8, 2, 0.5)
    assert (seen.step, seen.stale, seen.ready, seen.ranks) == (StepTime(base_s=0.02), False, True, True)
    assert seen.outstanding_tokens > 0


def test_requests_of_other_routers_count_and_own_ones_only_once():
    fleet, _ = ready_fleet("a")
    first = fleet.take("a", 10)
    assert facts(fleet)["a"].in_flight == 1
    fleet.pushed("a", EngineState(ready=True, in_flight=5))
    assert facts(fleet)["a"].in_flight == 5
    second = fleet.take("a", 10)
    assert facts(fleet)["a"].in_flight == 6
    fleet.release(first)
    fleet.release(second)
    assert facts(fleet)["a"].in_flight == 4
    fleet.pushed("a", EngineState(ready=True))
    assert facts(fleet)["a"].in_flight == 0


def test_a_replica_that_fell_silent_is_passed_over_while_another_is_fresh_but_is_not_taken_for_full():
    fleet, clock = ready_fleet("a", "b")
    full = EngineState(ready=True, in_flight=8, places=8, waiting=9, cache_used=1.0)
    for name in "ab":
        fleet.pushed(name, full)
    clock.now_s += LIMITS.stale_s + 0.1
    fleet.pushed("b", full)
    assert fleet.stale == {"a": True, "b": False}
    assert fleet.state_age_s == {"a": pytest.approx(LIMITS.stale_s + 0.1), "b": 0.0}
    assert fleet.ready == {"a": True, "b": True}
    seen = facts(fleet)["a"]
    assert (seen.stale, seen.ready, seen.waiting, seen.in_flight, seen.cache_used) == (True, True, 0, 0, 0.0)
    assert [replica.name for replica in candidates(fleet.candidates())] == ["b"]
    fleet.pushed("b", EngineState())
    assert [replica.name for replica in candidates(fleet.candidates())] == ["a"]


def test_a_replica_that_is_only_probed_is_stale_after_some_probes_came_to_nothing():
    fleet, clock = ready_fleet("a")
    clock.now_s += PROBES_MISSED * LIMITS.stale_s - 0.1
    assert fleet.stale == {"a": False}
    clock.now_s += 0.2
    assert fleet.stale == {"a": True}


def test_who_pushes_needs_no_probe_until_it_falls_silent_or_can_not_be_read():
    fleet, clock = ready_fleet("a")
    assert fleet.wants_probe("a")
    fleet.pushed("a", EngineState(ready=True))
    assert not fleet.wants_probe("a")
    clock.now_s += LIMITS.stale_s + 0.1
    assert fleet.wants_probe("a")
    fleet.pushed("a", EngineState(ready=True, places=4))
    fleet.unreadable("a")
    assert fleet.wants_probe("a")
    assert facts(fleet)["a"].places == 0


def test_a_replica_that_can_not_be_reached_twice_in_a_row_is_lost_until_it_is_heard_again():
    fleet, _ = ready_fleet("a", "b")
    fleet.missed("a")
    assert fleet.ready["a"]
    fleet.missed("a")
    assert not fleet.ready["a"]
    fleet.pushed("a", EngineState(ready=True))
    assert fleet.ready["a"]


def test_what_a_lost_replica_owes_is_awaited_until_it_has_been_silent_for_long():
    fleet, clock = ready_fleet("a", "b")
    lost = []
    fleet.on_lost = lost.append
    for silent_s, broken_off in ((0.1, []), (LIMITS.gone_s - 0.1, []), (LIMITS.gone_s, ["http://a"])):
        clock.now_s = silent_s
        fleet.missed("a")
        assert lost == broken_off


def test_a_replica_whose_tokens_keep_coming_is_not_lost_however_silent_it_is_otherwise():
    fleet, _ = ready_fleet("a")
    ticket = fleet.take("a", 100)
    for _ in range(5):
        fleet.produced(ticket, 1)
        fleet.missed("a")
    assert fleet.ready["a"]
    fleet.missed("a")
    assert not fleet.ready["a"]


def test_prefixes_are_known_by_replica_until_its_cache_is_lost():
    fleet, _ = ready_fleet("a", "b")
    fleet.take("a", 1, prefix=[1, 2, 3])
    assert facts(fleet, None, [1, 2, 4])["a"].prefix_tokens == 2 * BLOCK_TOKENS
    assert facts(fleet, None, [1, 2, 4])["b"].prefix_tokens == 0
    for _ in range(2):
        fleet.missed("a")
    assert facts(fleet, None, [1, 2, 4])["a"].prefix_tokens == 0


def test_who_waits_for_room_is_told_of_every_change_that_may_have_made_some():
    fleet, _ = ready_fleet("a")
    told = []
    fleet.on_change = lambda: told.append(1)
    ticket = fleet.take("a", 1)
    assert told == []
    fleet.release(ticket)
    fleet.release(ticket)
    fleet.pushed("a", EngineState(ready=True))
    fleet.probed("a", ready=True)
    fleet.replace({"b": "http://b"})
    assert len(told) == 4


# -- whatever happens --------------------------------------------------------------------------------------------------

AT_A_REPLICA = {
    "fail": lambda fleet, name, number: fleet.failed(name),
    "probe": lambda fleet, name, number: fleet.probed(name, ready=bool(number % 3)),
    "push": lambda fleet, name, number: fleet.pushed(
        name, EngineState(ready=bool(number % 3), in_flight=number, tokens_per_s=number)
    ),
    "miss": lambda fleet, name, number: fleet.missed(name),
}
OF_A_REQUEST = {
    "produce": lambda fleet, ticket, number: fleet.produced(ticket, number),
    "answer": lambda fleet, ticket, number: fleet.answered(ticket, 200 + number),
    "release": lambda fleet, ticket, number: fleet.release(ticket),
}
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["take", *AT_A_REPLICA, *OF_A_REQUEST]),
        st.sampled_from("ab"),
        st.integers(0, 500),
    ),
    max_size=80,
)


@settings(deadline=None)  # a busy machine is no failure
@given(ACTIONS)
def test_no_order_of_events_makes_a_count_negative_and_in_the_end_nothing_is_left(actions):
    (fleet, clock), tickets = ready_fleet("a", "b"), []
    for action, name, number in actions:
        clock.now_s += 0.7
        if action == "take":
            streams = bool(number % 2)
            tickets.append(fleet.take(name, number, f"p{number % 9}", [number, number + 1], streams=streams))
        elif action in AT_A_REPLICA:
            AT_A_REPLICA[action](fleet, name, number)
        elif tickets:
            OF_A_REQUEST[action](fleet, tickets[number % len(tickets)], number)
        assert sum(fleet.in_flight.values()) == sum(ticket.open for ticket in tickets)
        assert sum(fleet.ejected.values()) <= 1
        for replica in fleet.candidates("p1", [1, 2]):
            assert replica.outstanding_tokens >= 0
            assert replica.in_flight >= fleet.in_flight[replica.name]
            assert replica.tokens_per_s > 0
    for ticket in tickets:
        fleet.release(ticket)
    assert set(fleet.in_flight.values()) == {0}
    left = [(member.left_tokens, member.streaming, member.trials) for member in fleet._members.values()]
    assert left == [(0, 0, 0)] * 2
