"""The bookkeeping about replicas."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tempo_router.fleet import FAILURES_TO_EJECT, LONGEST_MEMORY, SAMPLE_S, Fleet


def ready_fleet(*names):
    fleet = Fleet({name: f"http://{name}/" for name in names})
    for name in names:
        fleet.probed(name, 0.0, ready=True)
    return fleet


def run_at(fleet, ticket, tokens_per_s, from_s):
    """One sampling window in which the replica brings so many tokens a second."""
    fleet.produced(ticket, round(tokens_per_s * SAMPLE_S))
    fleet.probed(ticket.replica, from_s + SAMPLE_S, ready=True)
    return from_s + SAMPLE_S


def test_a_replica_takes_no_request_before_its_first_good_probe():
    fleet = Fleet({"a": "http://a"})
    assert fleet.assign(10) is None
    fleet.probed("a", 0.0, ready=True)
    assert fleet.assign(10).replica == "a"


def test_work_is_spread_by_what_is_outstanding_and_freed_when_it_ends():
    fleet = ready_fleet("a", "b")
    first, second = fleet.assign(100), fleet.assign(10)
    assert (first.replica, second.replica) == ("a", "b")
    assert fleet.assign(10).replica == "b"
    fleet.release(first)
    assert fleet.assign(10).replica == "a"


def test_tokens_that_came_are_no_longer_outstanding():
    fleet = ready_fleet("a", "b")
    fleet.produced(fleet.assign(100), 95)
    fleet.assign(10)
    assert fleet.assign(10).replica == "a"


def test_failures_in_a_row_eject_a_replica_and_a_good_probe_lets_it_back():
    fleet = ready_fleet("a")
    for _ in range(FAILURES_TO_EJECT - 1):
        fleet.failed("a")
    assert fleet.ready == {"a": True}
    fleet.failed("a")
    assert fleet.ready == {"a": False}
    fleet.probed("a", 1.0, ready=True)
    assert fleet.ready == {"a": True}


def test_a_replica_that_says_it_is_not_ready_is_out_at_once():
    fleet = ready_fleet("a")
    fleet.probed("a", 1.0, ready=False)
    assert fleet.assign(1) is None


def test_speed_is_measured_over_a_window_and_smoothed():
    fleet = ready_fleet("a")
    ticket = fleet.assign(1000)
    now_s = run_at(fleet, ticket, 100.0, 0.0)
    assert fleet.tokens_per_s["a"] == pytest.approx(100.0)
    run_at(fleet, ticket, 200.0, now_s)
    assert 100.0 < fleet.tokens_per_s["a"] < 200.0


def test_a_replica_with_little_to_do_is_not_taken_for_a_slow_one():
    fleet = ready_fleet("a")
    tickets = [fleet.assign(1000) for _ in range(8)]
    now_s = run_at(fleet, tickets[0], 800.0, 0.0)
    for ticket in tickets[1:]:
        fleet.release(ticket)
    now_s = run_at(fleet, tickets[0], 100.0, now_s)
    fleet.release(tickets[0])
    fleet.probed("a", now_s + SAMPLE_S, ready=True)
    assert fleet.tokens_per_s["a"] == pytest.approx(800.0)


def test_a_replica_that_brings_less_under_the_same_load_is_slower():
    fleet = ready_fleet("a")
    ticket = fleet.assign(1000)
    run_at(fleet, ticket, 40.0, run_at(fleet, ticket, 100.0, 0.0))
    assert 40.0 < fleet.tokens_per_s["a"] < 100.0


def test_a_program_returns_to_its_replica_unless_another_is_clearly_sooner():
    fleet = ready_fleet("a", "b")
    now_s = {"a": 0.0, "b": 0.0}
    for ticket in (fleet.assign(10), fleet.assign(10)):
        run_at(fleet, ticket, 100.0, now_s[ticket.replica])
        fleet.release(ticket)
    busy = fleet.assign(10)
    assert fleet.assign(10, "p").replica == "b"
    fleet.release(busy)
    assert fleet.assign(10, "p").replica == "b"
    fleet.assign(1000, "p")
    assert fleet.assign(10, "p").replica == "a"


def test_the_memory_of_programs_is_bounded():
    fleet = ready_fleet("a")
    for index in range(LONGEST_MEMORY + 10):
        fleet.release(fleet.assign(1, f"p{index}"))
    assert len(fleet._homes) == LONGEST_MEMORY


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["assign", "produce", "release", "release again", "fail", "probe"]),
        st.integers(0, 20),
        st.integers(0, 500),
    ),
    max_size=80,
)


def test_replicas_that_stay_keep_what_is_known_of_them_and_new_ones_start_afresh():
    fleet = ready_fleet("a", "b")
    ticket = fleet.assign(100)
    fleet.replace({"a": "http://a/", "c": "http://c"})
    assert fleet.ready == {"a": True, "c": False}
    assert fleet.in_flight[ticket.replica] == 1


def test_a_request_at_a_replica_that_is_gone_ends_without_a_trace():
    fleet = ready_fleet("a")
    ticket = fleet.assign(100)
    fleet.replace({"a": "http://elsewhere"})
    fleet.produced(ticket, 10)
    fleet.failed("b")
    fleet.release(ticket)
    assert (fleet.in_flight, fleet.ready) == ({"a": 0}, {"a": False})
    assert ticket.url == "http://a"


@settings(deadline=None)  # a busy machine is no failure
@given(ACTIONS)
def test_no_order_of_events_makes_a_count_negative_and_in_the_end_nothing_is_left(actions):
    fleet, tickets, gone, now_s = ready_fleet("a", "b"), [], [], 0.0
    for action, index, tokens in actions:
        now_s += 0.7
        name = "ab"[index % 2]
        match action:
            case "assign" if ticket := fleet.assign(tokens, f"p{index}"):
                tickets.append(ticket)
            case "produce" if tickets:
                fleet.produced(tickets[index % len(tickets)], tokens)
            case "release" if tickets:
                gone.append(tickets.pop(index % len(tickets)))
                fleet.release(gone[-1])
            case "release again" if gone:
                fleet.release(gone[index % len(gone)])
            case "fail":
                fleet.failed(name)
            case "probe":
                fleet.probed(name, now_s, ready=bool(tokens % 3))
        assert sum(fleet.in_flight.values()) == len(tickets)
        assert all(replica.outstanding_tokens >= 0 for replica in fleet._facts(None))
        assert all(speed >= 0 for speed in fleet.tokens_per_s.values())
    for ticket in tickets:
        fleet.release(ticket)
    assert set(fleet.in_flight.values()) == {0}
    assert all(replica.outstanding_tokens == 0 for replica in fleet._facts(None))
