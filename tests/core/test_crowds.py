"""Who crowds: whoever has its part of the places and more than others have, while there are others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_core.crowds import Crowds

PLACES = 40


def crowds_of(now_s: float = 0.0, **in_flight: int) -> Crowds:
    crowds = Crowds()
    for tenant, requests in in_flight.items():
        for _ in range(requests):
            crowds.begins(tenant, now_s)
    return crowds


def test_a_lone_tenant_has_everything() -> None:
    assert not crowds_of(lone=1000).crowds("lone", PLACES, 0.0)


def test_who_has_its_part_of_the_places_and_twice_what_others_have_crowds() -> None:
    assert crowds_of(greedy=20, modest=2).crowds("greedy", PLACES, 0.0)
    assert not crowds_of(greedy=19, modest=2).crowds("greedy", PLACES, 0.0)


def test_who_asks_for_much_as_all_others_do_does_not_crowd() -> None:
    crowds = crowds_of(a=300, b=250, c=200)
    assert not any(crowds.crowds(tenant, PLACES, 0.0) for tenant in "abc")


def test_a_newcomer_does_not_crowd() -> None:
    assert not crowds_of(greedy=100).crowds("newcomer", PLACES, 0.0)


def test_who_crowded_does_not_once_its_requests_have_ended() -> None:
    crowds = crowds_of(greedy=20, modest=2)
    crowds.ends("greedy", 1.0)
    assert not crowds.crowds("greedy", PLACES, 1.0)


@pytest.mark.parametrize(("after_s", "kept"), [(29.0, True), (31.0, False)])
def test_a_tenant_s_part_is_kept_for_it_for_half_a_minute(after_s: float, kept: bool) -> None:
    crowds = crowds_of(gone=1)
    crowds.ends("gone", 0.0)
    for _ in range(30):
        crowds.begins("greedy", after_s)
    assert crowds.crowds("greedy", PLACES, after_s) == kept


@given(st.lists(st.integers(0, 60), min_size=1, max_size=12), st.integers(1, 200))
def test_fewer_than_all_crowd_and_never_who_has_least(in_flight: list[int], places: int) -> None:
    crowds = crowds_of(**{f"t{i}": requests for i, requests in enumerate(in_flight)})
    crowding = [crowds.crowds(f"t{i}", places, 0.0) for i in range(len(in_flight))]
    assert not crowding[in_flight.index(min(in_flight))]


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_what_began_and_ended_leaves_nothing(tenants: list[str]) -> None:
    crowds = Crowds()
    for tenant in tenants:
        crowds.begins(tenant, 0.0)
    for tenant in tenants:
        crowds.ends(tenant, 0.0)
    assert not any(crowds.crowds(tenant, 1, 0.0) for tenant in "abc")


def test_tenants_are_forgotten_beyond_a_bound() -> None:
    crowds = Crowds()
    for number in range(10_050):
        crowds.begins(f"t{number}", 0.0)
        crowds.ends(f"t{number}", 0.0)
    for _ in range(2):
        crowds.begins("greedy", 0.0)
    assert not crowds.crowds("greedy", 20_050, 0.0)  # a ten-thousandth part, not one of 10,051
