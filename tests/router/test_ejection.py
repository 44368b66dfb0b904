"""Which replicas are left alone, when they come back, and how much may be retried."""

import pytest

from support.fleets import LIMITS, fail, ready_fleet, review, serve


def test_requests_that_fail_in_a_row_eject_a_replica_whatever_it_says_of_itself():
    fleet, clock = ready_fleet("a", "b")
    fail(fleet, "a", LIMITS.failures - 1)
    assert fleet.ready["a"]
    fleet.failed("a")
    review(fleet, clock)
    assert (fleet.ready, fleet.ejected) == ({"a": False, "b": True}, {"a": True, "b": False})


def test_an_answer_between_two_failures_begins_the_count_anew():
    fleet, _ = ready_fleet("a", "b")
    for _ in range(4):
        fleet.failed("a")
        serve(fleet, "a", 1)
    assert fleet.ready["a"]


def test_an_ejected_replica_comes_back_by_a_good_probe_once_its_time_is_over():
    fleet, clock = ready_fleet("a", "b")
    fail(fleet, "a")
    fleet.probed("a", ready=True)
    assert not fleet.ready["a"]
    clock.now_s += LIMITS.out_s
    assert fleet.wants_probe("a")
    fleet.probed("a", ready=False)
    assert fleet.ejected["a"]
    fleet.probed("a", ready=True)
    assert fleet.ready["a"]


def test_who_fails_again_at_once_is_out_for_twice_as_long_up_to_a_minute():
    fleet, clock = ready_fleet("a", "b")
    fail(fleet, "a")
    for times in range(1, 12):
        clock.now_s += min(LIMITS.out_s * 2 ** (times - 1), LIMITS.longest_out_s)
        fleet.probed("a", ready=True)
        fleet.failed("a")  # on probation, one is enough
        clock.now_s += min(LIMITS.out_s * 2**times, LIMITS.longest_out_s) - 0.01
        fleet.probed("a", ready=True)
        assert fleet.ejected["a"]
        clock.now_s += 0.01 - min(LIMITS.out_s * 2**times, LIMITS.longest_out_s)


def test_one_that_has_behaved_for_long_starts_over():
    fleet, clock = ready_fleet("a", "b")
    for _ in range(3):
        fail(fleet, "a")
        clock.now_s += LIMITS.out_s
        fleet.probed("a", ready=True)
        assert fleet.ready["a"]
        clock.now_s += LIMITS.longest_out_s + 1.0


@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 5, 8])
def test_never_more_than_half_of_the_replicas_are_ejected(replicas):
    fleet, _ = ready_fleet(*(f"r{index}" for index in range(replicas)))
    for name in fleet.urls:
        fail(fleet, name)
    assert sum(fleet.ejected.values()) == replicas // 2


def test_where_fewer_than_half_would_be_left_the_ejected_serve_too():
    fleet, _ = ready_fleet("a", "b", "c", "d")
    fail(fleet, "a")
    fleet.probed("b", ready=False)
    assert fleet.ready == {"a": False, "b": False, "c": True, "d": True}
    fleet.probed("c", ready=False)
    assert fleet.ready == {"a": True, "b": False, "c": False, "d": True}


def test_a_replica_most_of_whose_answers_are_server_errors_is_ejected():
    fleet, clock = ready_fleet("a", "b", "c")
    for name, status in (("a", 500), ("b", 200), ("c", 404)):
        serve(fleet, name, status=status)
    review(fleet, clock)
    assert fleet.ejected == {"a": True, "b": False, "c": False}


def test_errors_that_every_replica_gives_are_the_requests_own_fault():
    fleet, clock = ready_fleet("a", "b", "c")
    for name in fleet.urls:
        serve(fleet, name, status=500)
    review(fleet, clock)
    assert not any(fleet.ejected.values())


def test_a_replica_ten_times_slower_than_its_peers_is_ejected():
    fleet, clock = ready_fleet("a", "b", "c")
    for name, after_s in (("a", 3.0), ("b", 0.3), ("c", 0.3)):
        serve(fleet, name, after_s=after_s)
    review(fleet, clock)
    assert fleet.ejected == {"a": True, "b": False, "c": False}


@pytest.mark.parametrize(
    ("answers", "slow_s"), [(LIMITS.least_answers - 1, 3.0), (LIMITS.least_answers, 0.4)], ids=["few", "not slow"]
)
def test_a_few_slow_answers_or_slightly_slow_ones_eject_nobody(answers, slow_s):
    fleet, clock = ready_fleet("a", "b")
    serve(fleet, "a", answers, after_s=slow_s)
    serve(fleet, "b", after_s=0.001)
    review(fleet, clock)
    assert not any(fleet.ejected.values())


def test_whole_answers_are_no_sign_of_slowness_for_they_come_the_later_the_longer_they_are():
    fleet, clock = ready_fleet("a", "b", "c")
    serve(fleet, "a", after_s=30.0, streams=False)
    for name in ("b", "c"):
        serve(fleet, name, after_s=0.1)
    review(fleet, clock)
    assert not any(fleet.ejected.values())


def test_nobody_is_slow_beside_replicas_that_had_no_streams():
    fleet, clock = ready_fleet("a", "b", "c")
    serve(fleet, "a", after_s=3.0)
    for name in ("b", "c"):
        serve(fleet, name, streams=False)
    review(fleet, clock)
    assert not any(fleet.ejected.values())


def test_what_was_long_ago_counts_no_more():
    fleet, clock = ready_fleet("a", "b")
    serve(fleet, "a", status=500)
    clock.now_s += LIMITS.window_s + 1.0
    review(fleet, clock)
    assert not fleet.ejected["a"]


# -- retries -----------------------------------------------------------------------------------------------------------


def test_retries_are_a_fifth_of_the_requests_and_a_reserve():
    fleet, _ = ready_fleet("a")
    for _ in range(1000):
        fleet.release(fleet.take("a", 1))
    granted = 0
    while fleet.may_retry():
        fleet.release(fleet.take("a", 1))
        granted += 1
    assert granted == 300


def test_the_reserve_comes_back_with_time():
    fleet, clock = ready_fleet("a")
    while fleet.may_retry():
        pass
    clock.now_s += 10.0
    assert sum(fleet.may_retry() for _ in range(200)) == pytest.approx(63, abs=20)
