"""Which replica a request goes to, and who may be asked."""

from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tempo_core.routing import Demand, Replica, candidates, choose, room
from tempo_core.slo import Objectives, Pattern, SLOClass
from tempo_core.steptime import StepTime

CHAT = SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=1.0, tbt_s=0.1))
TOOL = SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=8.0))
BATCH = SLOClass("batch", Pattern.BEST_EFFORT)
STEP = StepTime(0.02, 0.001, 0.0005)
SOME = Demand(BATCH, prompt_tokens=10, output_tokens=20)


def chosen(replicas: list[Replica], demand: Demand = SOME) -> str:
    found = choose(replicas, demand, Random(0).randrange)
    assert found is not None
    return found.name


def test_the_replica_with_the_least_work_for_its_speed_is_chosen():
    assert chosen([Replica("slow", True, 100, 10.0), Replica("fast", True, 500, 100.0)]) == "fast"


def test_the_request_s_own_work_counts_so_idle_replicas_are_told_apart_by_speed():
    assert chosen([Replica("slow", True, 0, 10.0), Replica("fast", True, 0, 100.0)]) == "fast"


def test_of_none_none_is_chosen():
    assert choose([], SOME, Random(0).randrange) is None


def test_ties_go_to_the_first():
    assert chosen([Replica("a", True, 5, 1.0), Replica("b", True, 5, 1.0)]) == "a"


def test_a_replica_that_is_not_ready_or_was_tried_already_is_no_candidate():
    away, here, tried = (Replica(name, name != "away", 0, 1.0) for name in ("away", "here", "tried"))
    assert candidates([away, here, tried], {"tried"}) == [here]


def test_a_stale_replica_is_a_candidate_only_where_there_is_no_other():
    silent, fresh = Replica("silent", True, 0, 1.0, stale=True), Replica("fresh", True, 99, 1.0)
    assert candidates([silent, fresh]) == [fresh]
    assert candidates([silent]) == [silent]


def test_a_request_goes_where_its_prefix_is_unless_that_costs_more_than_it_saves():
    demand = Demand(TOOL, prompt_tokens=4000, output_tokens=20)
    warm, idle = Replica("warm", True, 100, 100.0, prefix_tokens=3900), Replica("idle", True, 0, 100.0)
    assert chosen([idle, warm], demand) == "warm"
    assert chosen([idle, warm._replace(outstanding_tokens=2000)], demand) == "idle"


def test_a_program_stays_where_it_is_unless_that_costs_half_a_second():
    home, idle = Replica("home", True, 49, 100.0, holds_program=True), Replica("idle", True, 0, 100.0)
    assert chosen([idle, home]) == "home"
    assert chosen([idle, home._replace(outstanding_tokens=51)]) == "idle"


def test_a_stream_goes_where_it_starts_in_time_though_more_work_is_left_elsewhere():
    """One has a place free and long answers to finish; the other has little left, but every place is taken."""
    roomy = Replica("roomy", True, 900, 100.0, in_flight=3, places=4, step=STEP)
    full = Replica("full", True, 700, 100.0, in_flight=4, places=4, step=STEP)
    assert chosen([full, roomy], Demand(CHAT, 10, 20)) == "roomy"
    assert chosen([full, roomy], SOME) == "full"


def test_room_is_its_places_and_a_thirty_second_more_but_at_least_one():
    replica = Replica("a", True, 0, 1.0, in_flight=5, places=16)
    assert room(replica) == 12
    assert room(replica._replace(in_flight=17)) == 0
    assert room(replica._replace(places=256)) == 259


def test_an_engine_that_ranks_its_queue_is_given_four_times_its_places_to_choose_from():
    replica = Replica("a", True, 0, 1.0, in_flight=5, places=16, ranks=True)
    assert room(replica) == 75
    assert room(replica._replace(in_flight=80)) == 0
    assert room(replica, crowds=True) == 12


def test_a_replica_that_does_not_say_how_many_it_runs_has_room():
    assert room(Replica("a", True, 0, 1.0, in_flight=5000)) == inf


def test_a_replica_whose_cache_is_full_has_no_room_while_somebody_waits_there():
    replica = Replica("a", True, 0, 1.0, in_flight=2, places=8, cache_used=0.99)
    assert room(replica) > 0
    assert room(replica._replace(waiting=1)) == 0


def test_of_many_replicas_two_at_random_and_those_with_the_prefix_are_looked_at():
    fleet = [Replica(str(i), True, i, 100.0) for i in range(100)]
    assert chosen(fleet) != "0"  # the best of all, had it been looked at
    fleet[70] = fleet[70]._replace(prefix_tokens=10.0, outstanding_tokens=0)
    assert chosen(fleet, Demand(TOOL, 10, 20)) == "70"


@pytest.mark.parametrize("routers", [1, 4])
def test_two_random_choices_keep_a_large_fleet_even(routers: int):
    """Also where several routers see the same state, a round of requests old."""
    random, load = Random(1), [0] * 64
    for _ in range(400):
        seen = [Replica(str(i), True, 30.0 * n, 100.0, in_flight=n) for i, n in enumerate(load)]
        for _ in range(routers):
            load[int(choose(seen, SOME, random.randrange).name)] += 1
    mean = sum(load) / len(load)
    assert max(load) - mean <= 4 * routers


replicas = st.builds(
    Replica,
    name=st.text(max_size=3),
    ready=st.booleans(),
    outstanding_tokens=st.floats(0, 1e9),
    tokens_per_s=st.floats(0, 1e6),
    in_flight=st.integers(0, 1000),
    places=st.integers(0, 256),
    waiting=st.integers(0, 1000),
    cache_used=st.floats(0, 1),
    stale=st.booleans(),
    prefix_tokens=st.floats(0, 1e6),
    step=st.sampled_from([None, STEP]),
)
demands = st.builds(
    Demand,
    slo=st.sampled_from([CHAT, TOOL, BATCH]),
    prompt_tokens=st.floats(0, 1e6),
    output_tokens=st.floats(1, 1e6),
    elapsed_s=st.floats(0, 1e4),
    deadline_s=st.sampled_from([-5.0, 0.0, 8.0, inf]),
)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(replicas, max_size=40), demands)
def test_whatever_is_chosen_is_ready_and_something_is_chosen_if_anything_is(fleet: list[Replica], demand: Demand):
    found = choose(candidates(fleet), demand, Random(0).randrange)
    assert (found is not None) == any(replica.ready for replica in fleet)
    assert found is None or found.ready
