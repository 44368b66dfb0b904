"""Which replica a request goes to."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tempo_core.routing import AFFINITY_S, Replica, route


def test_the_replica_with_the_least_work_for_its_speed_is_chosen():
    slow, fast = Replica("slow", True, 100, 10.0), Replica("fast", True, 500, 100.0)
    assert route([slow, fast], 0).name == "fast"


def test_the_request_s_own_work_counts_so_idle_replicas_are_told_apart_by_speed():
    assert route([Replica("slow", True, 0, 10.0), Replica("fast", True, 0, 100.0)], 50).name == "fast"


def test_a_replica_that_is_not_ready_gets_nothing():
    assert route([Replica("away", False, 0, 100.0), Replica("here", True, 900, 1.0)], 1).name == "here"
    assert route([Replica("away", False, 0, 100.0)], 1) is None
    assert route([], 1) is None


def test_a_replica_that_was_tried_already_is_left_out():
    replicas = [Replica("a", True, 0, 1.0), Replica("b", True, 9, 1.0)]
    assert route(replicas, 1, {"a"}).name == "b"
    assert route(replicas, 1, {"a", "b"}) is None


def test_a_warm_prefix_is_worth_half_a_second_and_no_more():
    home = Replica("home", True, 100 * AFFINITY_S, 100.0, holds_program=True)
    assert route([Replica("idle", True, 1, 100.0), home], 10).name == "home"
    assert route([Replica("idle", True, 0, 100.0), home._replace(outstanding_tokens=51)], 10).name == "idle"


def test_ties_go_to_the_first():
    assert route([Replica("a", True, 5, 1.0), Replica("b", True, 5, 1.0)], 3).name == "a"


replicas = st.builds(
    Replica,
    name=st.text(max_size=3),
    ready=st.booleans(),
    outstanding_tokens=st.floats(0, 1e9),
    tokens_per_s=st.floats(0, 1e6),
    holds_program=st.booleans(),
)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(replicas, max_size=8), st.floats(0, 1e6))
def test_whatever_is_chosen_is_ready_and_something_is_chosen_if_anything_is(fleet, tokens):
    chosen = route(fleet, tokens)
    assert (chosen is not None) == any(replica.ready for replica in fleet)
    assert chosen is None or chosen.ready
