"""Routers that are compared: each loses nobody, and does what its documents say."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.sim import CLASSES, TINY, simulate, workloads
from tempo_core.policies import POLICIES
from tempo_core.routing import Demand, Replica
from tempo_core.slo import GainRule, Objectives, Pattern, SLOClass
from tempo_core.snapshot import Job, Settings
from tempo_sim.lengths import answer_tokens
from tempo_sim.routers import (
    ROUTERS,
    Bands,
    Classes,
    Gated,
    MostGain,
    Offer,
    RoundRobin,
    cache_aware,
    least_loaded,
    scored,
)

CHAT = SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=1.0, tbt_s=0.1))
TOOL = SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=8.0))
HEAVY = SLOClass("heavy", Pattern.DEADLINE, Objectives(ttlt_s=8.0), GainRule(weight=8.0))
BATCH = SLOClass("batch", Pattern.BEST_EFFORT)


def offer(id_: str, slo: SLOClass = TOOL, arrival_s: float = 0.0, prompt: int = 50, tenant: str = "") -> Offer:
    due_s = arrival_s + slo.deadline_s()
    made = Job(id_, slo, arrival_s=arrival_s, prompt_tokens=prompt, max_tokens=100, deadline_s=due_s, tenant=tenant)
    return Offer(made, Demand(slo, prompt, 50.0, 0.0, slo.deadline_s()), ())


def replica(name: str = "0", **facts) -> Replica:
    return Replica(name, True, **{"outstanding_tokens": 0.0, "tokens_per_s": 100.0, "places": 4, **facts})


def sent(line, *replicas: Replica, now_s: float = 0.0, most: int = 100) -> list[str]:
    """Ids of those that a line lets go while the replicas stay as they are."""
    gone = []
    while len(gone) < most and (one := line.next(now_s, lambda _: replicas)):
        gone.append(one.job.id)
    return gone


@pytest.mark.parametrize("router", ROUTERS)
@settings(max_examples=8, deadline=None)
@given(units=workloads(), policy=st.sampled_from(["fcfs", "tempo"]), replicas=st.integers(1, 3))
def test_every_unit_ends_once_with_exactly_its_tokens(router, units, policy, replicas):
    result = simulate(units, CLASSES, POLICIES[policy], TINY, replicas=replicas, router=ROUTERS[router])
    assert [unit.id for unit in result.units] == [unit.id for unit in units]
    for unit, ended in zip(units, result.units, strict=True):
        assert ended.output_tokens == sum(answer_tokens(call) for call in unit.calls)


def test_the_gate_lets_nobody_go_to_replicas_that_have_no_room():
    gate = Gated(Settings())
    gate.join(offer("a"), 0.0)
    assert sent(gate, replica(in_flight=5)) == []
    assert sent(gate, replica(in_flight=4)) == ["a"]


def test_the_gate_lets_go_first_who_loses_most():
    gate = Gated(Settings())
    for name, slo in (("batch", BATCH), ("tool", TOOL), ("chat", CHAT)):
        gate.join(offer(name, slo), 0.0)
    assert sent(gate, replica(), now_s=0.5) == ["chat", "tool", "batch"]


def test_the_gate_keeps_the_queues_of_engines_that_rank_for_those_who_do_not_crowd():
    gate = Gated(Settings())
    gate.join(offer("modest", tenant="modest"), 0.0)
    flood = [offer(f"greedy{i}", tenant="greedy") for i in range(9)]
    for each in flood:
        gate.join(each, 0.0)
    assert len(sent(gate, replica(ranks=True), most=5)) == 5
    gate.join(offer("more", tenant="modest"), 0.0)
    assert sent(gate, replica(ranks=True, in_flight=5)) == ["more"]
    assert len(sent(gate, replica(ranks=True, in_flight=4))) == 5
    for each in flood:
        gate.ended(each, 50, 1.0)
    gate.join(offer("again", tenant="greedy"), 1.0)
    assert sent(gate, replica(ranks=True, in_flight=5), now_s=1.0) == ["again"]


def test_bands_go_in_strict_order_and_by_deadline_inside():
    bands = Bands(Settings())
    for each in (offer("batch", BATCH), offer("later", arrival_s=2.0), offer("sooner"), offer("heavy", HEAVY, 3.0)):
        bands.join(each, each.job.arrival_s)
    assert sent(bands, replica()) == ["heavy", "sooner", "later", "batch"]


@pytest.mark.parametrize("full", [{"waiting": 5}, {"cache_used": 0.8}])
def test_bands_are_held_while_the_pool_is_saturated(full):
    bands = Bands(Settings())
    bands.join(offer("a"), 0.0)
    assert sent(bands, replica(**full)) == []
    assert sent(bands, replica(**full), replica("1")) == ["a"]


def test_classes_fill_the_places_of_all_replicas_and_no_more():
    classes = Classes(Settings())
    classes.join(offer("a"), 0.0)
    assert sent(classes, replica(in_flight=4), replica("1", in_flight=4)) == []
    assert sent(classes, replica(in_flight=4), replica("1", in_flight=3)) == ["a"]


def test_the_head_of_a_class_that_has_waited_its_time_goes_first():
    classes = Classes(Settings())
    classes.join(offer("light"), 0.0)
    for number in range(3):
        classes.join(offer(f"heavy{number}", HEAVY, 29.0), 29.0)
    assert sent(classes, replica(), now_s=29.0, most=1) == ["heavy0"]
    assert sent(classes, replica(), now_s=31.0, most=1) == ["light"]


def test_round_robin_takes_turns():
    pick = RoundRobin()
    assert [pick(offer("a"), [replica("0"), replica("1")]).name for _ in range(3)] == ["0", "1", "0"]


def test_least_loaded_counts_requests_in_flight():
    assert least_loaded(offer("a"), [replica("0", in_flight=2), replica("1", in_flight=1)]).name == "1"


def test_cache_aware_goes_where_a_third_of_the_prompt_is_unless_load_is_out_of_balance():
    warm, idle = replica("warm", in_flight=60, prefix_tokens=30), replica("idle")
    request = offer("a", prompt=90)
    assert cache_aware(request, [warm, idle]).name == "warm"
    assert cache_aware(request, [warm._replace(prefix_tokens=20), idle]).name == "idle"
    assert cache_aware(request, [warm._replace(in_flight=65), idle]).name == "idle"


def test_scores_weigh_prefix_queue_and_cache():
    warm, idle = replica("warm", waiting=9, prefix_tokens=50), replica("idle")
    assert scored(offer("a"), [warm, idle]).name == "warm"
    assert scored(offer("a"), [warm._replace(cache_used=0.9), idle]).name == "idle"


def test_the_choice_that_earns_most_is_made_of_those_with_room_as_long_as_there_are_any():
    full, slow = replica("full", in_flight=5), replica("slow", tokens_per_s=1.0)
    assert MostGain()(offer("a"), [full, slow]).name == "slow"
    assert MostGain()(offer("a"), [full, full._replace(name="other", outstanding_tokens=9.0)]).name == "full"
