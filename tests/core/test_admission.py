"""What the gate promises: nobody is lost, the bound holds, weights and tenants count, and nobody is passed over."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tempo_core.admission import FRAME_S, Engines, Gate, Shares, engines
from tempo_core.routing import Replica
from tempo_core.slo import GainRule, Objectives, Pattern, SLOClass
from tempo_core.snapshot import Job, Settings
from tempo_core.steptime import StepTime

CHAT = SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=1.0, tbt_s=0.1))
TOOL = SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=8.0))
HEAVY = SLOClass("heavy", Pattern.DEADLINE, Objectives(ttlt_s=8.0), GainRule(weight=8.0))
BATCH = SLOClass("batch", Pattern.BEST_EFFORT)
LENGTHS = (10.0, 20.0, 40.0, 60.0, 80.0, 90.0, 100.0)
ENGINES = Engines(places=4, tokens_per_s=100.0, step=StepTime(0.02, 0.001, 0.0005))


def job(id_: str, slo: SLOClass = TOOL, arrival_s: float = 0.0, tenant: str = "", prompt: int = 50) -> Job:
    return Job(
        id_,
        slo,
        arrival_s=arrival_s,
        prompt_tokens=prompt,
        max_tokens=200,
        lengths=LENGTHS,
        deadline_s=arrival_s + slo.deadline_s(),
        tenant=tenant,
    )


def gate_of(*jobs: Job, capacity: int = 1000, **tuning) -> Gate:
    gate = Gate(capacity, Settings(**tuning))
    for each in jobs:
        gate.hold(each, 0.0, ENGINES)
    return gate


def released(gate: Gate, now_s: float = 0.0) -> list[str]:
    return [job.id for job in iter(lambda: gate.release(now_s, ENGINES), None)]


def test_everybody_who_waits_is_released_once() -> None:
    assert sorted(released(gate_of(*(job(f"r{i}") for i in range(20))))) == sorted(f"r{i}" for i in range(20))


def test_who_loses_most_by_waiting_is_next() -> None:
    gate = gate_of(job("batch", BATCH), job("tool"), job("chat", CHAT))
    assert released(gate, now_s=0.5) == ["chat", "tool", "batch"]


def test_of_requests_alike_the_heavier_class_goes_first() -> None:
    jobs = [job(f"{slo.name}{i}", slo, prompt=4000) for i in range(10) for slo in (TOOL, HEAVY)]
    assert all(id_.startswith("heavy") for id_ in released(gate_of(*jobs))[:10])


def test_who_gave_up_is_not_released() -> None:
    gate = gate_of(job("stays"), job("goes"))
    gate.leave("goes")
    gate.leave("goes")
    assert released(gate) == ["stays"]


def test_of_one_too_many_the_least_deserving_has_to_go() -> None:
    gate = gate_of(job("batch", BATCH), job("tool"), capacity=2)
    assert gate.hold(job("chat", CHAT), FRAME_S, ENGINES) == "batch"


def test_a_newcomer_who_deserves_least_has_to_go_itself() -> None:
    gate = gate_of(job("chat", CHAT), job("tool"), capacity=2)
    assert gate.hold(job("batch", BATCH), FRAME_S, ENGINES) == "batch"


def test_what_is_degraded_waits_behind_promises() -> None:
    gate = gate_of(job("a"), job("b"))
    gate.degrade(job("a", replace(TOOL, pattern=Pattern.BEST_EFFORT)))
    assert released(gate, now_s=1.0) == ["b", "a"]


def test_a_tenant_that_was_served_more_than_the_others_stands_back() -> None:
    gate = gate_of(*(job(f"greedy{i}", CHAT, tenant="greedy") for i in range(10)), job("modest", CHAT, tenant="modest"))
    gate.begins("greedy", "chat", 1000.0, 0.0)
    assert released(gate)[0] == "modest"


def test_two_tenants_of_a_class_take_turns_however_much_one_of_them_asks_for() -> None:
    gate = gate_of(
        *(job(f"greedy{i}", tenant="greedy") for i in range(200)),
        *(job(f"modest{i}", tenant="modest") for i in range(20)),
    )
    order = []
    for step in range(60):
        each = gate.release(step * 2 * FRAME_S, ENGINES)
        gate.begins(each.tenant, "tool", 50.0, 0.0)
        order.append(each.tenant)
    assert order[:40].count("modest") >= 18


def test_a_tenant_that_was_served_much_in_one_class_does_not_stand_back_in_another() -> None:
    gate = gate_of(job("other", TOOL, tenant="other"), job("waits", CHAT, tenant="busy"))
    gate.begins("busy", "chat", 5000.0, 0.0)
    assert gate.shares.leads(("chat/busy", "tool/busy", "tool/other")) == dict.fromkeys(
        ("chat/busy", "tool/busy", "tool/other"), 0.0
    )


def test_a_tenant_that_stands_back_gives_its_turns_to_its_own_class_and_no_other() -> None:
    jobs = [job(f"greedy{i}", HEAVY, tenant="greedy", prompt=4000) for i in range(5)]
    jobs += [job("modest", HEAVY, tenant="modest", prompt=4000), *(job(f"tool{i}", prompt=4000) for i in range(5))]
    gate = gate_of(*jobs)
    gate.begins("greedy", "heavy", 1000.0, 0.0)
    order = released(gate)
    assert order[0] == "modest"
    assert all(id_.startswith("greedy") for id_ in order[1:6])


def a_flood(waiting: int = 3) -> Gate:
    """A gate before full places, which one tenant has most of; it waits for more."""
    gate = gate_of()
    for tenant in (*("greedy",) * 8, "modest"):
        gate.begins(tenant, "tool", 50.0, 0.0)
    for number in range(waiting):
        gate.hold(job(f"greedy{number}", tenant="greedy"), 0.0, ENGINES)
    return gate


def test_who_crowds_gets_places_and_no_more() -> None:
    gate = a_flood()
    assert gate.release(0.0, ENGINES, to_place=False) is None
    assert gate.release(0.0, ENGINES).tenant == "greedy"


def test_others_pass_who_crowds_and_stand_behind_the_places() -> None:
    gate = a_flood()
    gate.release(0.0, ENGINES)  # the order is as old as this
    gate.hold(job("modest", tenant="modest"), FRAME_S / 2, ENGINES)
    assert gate.release(FRAME_S / 2, ENGINES, to_place=False).id == "modest"
    assert gate.release(FRAME_S / 2, ENGINES, to_place=False) is None


def test_others_that_wait_beside_who_crowds_go_in_their_order() -> None:
    gate = a_flood()
    for each in (job("batch", BATCH, tenant="modest"), job("chat", CHAT, tenant="modest")):
        gate.hold(each, 0.0, ENGINES)
    gone = [gate.release(2 * FRAME_S, ENGINES, to_place=False) for _ in range(3)]
    assert [each and each.id for each in gone] == ["chat", "batch", None]


def test_who_crowds_no_longer_stands_behind_the_places_again() -> None:
    gate = a_flood()
    for _ in range(7):
        gate.ends("greedy", "tool", 0.0, 1.0)
    assert gate.release(1.0, ENGINES, to_place=False).tenant == "greedy"


def test_time_in_which_a_tenant_asked_for_nothing_is_not_saved_up() -> None:
    shares = Shares()
    shares.joins("busy")
    shares.charge("busy", 5000.0)
    shares.leads(["busy"])
    shares.joins("idle")
    assert shares.leads(["busy", "idle"]) == {"busy": 0.0, "idle": 0.0}


def test_what_a_tenant_was_served_while_nobody_waited_is_no_debt() -> None:
    gate = gate_of()
    gate.begins("busy", "tool", 5000.0, 0.0)
    gate.hold(job("r1", tenant="busy"), 0.0, ENGINES)
    gate.hold(job("r2", tenant="idle"), 0.0, ENGINES)
    assert gate.shares.leads(["tool/busy", "tool/idle"]) == {"tool/busy": 0.0, "tool/idle": 0.0}


def test_tenants_are_forgotten_beyond_a_bound() -> None:
    shares = Shares()
    for number in range(10_050):
        shares.charge(str(number), 1.0)
    assert shares.leads(["0", "10049"]) == {"0": 0.0, "10049": 1.0}


def test_work_that_nothing_is_lost_by_is_released_in_time_beside_an_endless_stream_of_better_work() -> None:
    """One release of 128 is for who has waited longest, if longer than the pool's patience."""
    gate = gate_of(job("worthless", BATCH), patience_s=2.0)
    now_s, ids = 0.0, []
    while "worthless" not in ids and len(ids) < 1000:
        now_s += FRAME_S
        gate.hold(job(f"chat{now_s}", CHAT, now_s), now_s, ENGINES)
        gate.hold(job(f"more{now_s}", CHAT, now_s), now_s, ENGINES)
        ids.append(gate.release(now_s, ENGINES).id)
    assert len(ids) <= 256


def test_replicas_together_are_one_engine_with_all_their_places() -> None:
    step = StepTime(0.01, 0.002, 0.0001)
    fleet = [Replica(name, True, 0, 100.0, places=8, step=step) for name in "ab"]
    assert engines(fleet) == Engines(16, 200.0, 2, step)


@given(st.lists(st.sampled_from([CHAT, TOOL, HEAVY, BATCH]), min_size=1, max_size=30), st.floats(0.0, 100.0))
@settings(deadline=None, max_examples=50)
def test_the_order_does_not_depend_on_who_came_to_the_gate_first(classes: list[SLOClass], now_s: float) -> None:
    jobs = [job(f"r{i:02}", slo, arrival_s=0.01 * i, prompt=10 + i) for i, slo in enumerate(classes)]
    assert released(gate_of(*jobs), now_s) == released(gate_of(*reversed(jobs)), now_s)


class AnyUse(RuleBasedStateMachine):
    """Whatever happens, the gate holds exactly who came and neither left nor was released, and no more than it may."""

    CAPACITY = 8

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.inside, self.now_s, self.number = Gate(self.CAPACITY, Settings()), set(), 0.0, 0
        self.served: list[Job] = []

    @rule(slo=st.sampled_from([CHAT, TOOL, HEAVY, BATCH]), tenant=st.sampled_from("abc"))
    def arrives(self, slo: SLOClass, tenant: str) -> None:
        self.number += 1
        id_ = f"r{self.number}"
        self.inside.add(id_)
        out = self.gate.hold(job(id_, slo, self.now_s, tenant), self.now_s, ENGINES)
        assert (out is not None) == (len(self.inside) > self.CAPACITY)
        if out is not None:
            self.gate.leave(out)
            self.inside.remove(out)

    @rule(passed_s=st.floats(0.0, 50.0))
    def time_passes(self, passed_s: float) -> None:
        self.now_s += passed_s

    @rule(to_place=st.booleans())
    def is_released(self, to_place: bool) -> None:
        out = self.gate.release(self.now_s, ENGINES, to_place=to_place)
        assert out is not None or not (self.inside and to_place)
        if out is not None:
            assert to_place or not self.gate.crowds(out.tenant, ENGINES.places, self.now_s)
            self.gate.begins(out.tenant, out.slo.name, 50.0, self.now_s)
            self.served.append(out)
            self.inside.remove(out.id)

    @rule()
    def ends(self) -> None:
        if self.served:
            out = self.served.pop(0)
            self.gate.ends(out.tenant, out.slo.name, 5.0, self.now_s)

    @rule(data=st.data())
    def gives_up(self, data: st.DataObject) -> None:
        if self.inside:
            id_ = data.draw(st.sampled_from(sorted(self.inside)))
            self.gate.leave(id_)
            self.inside.remove(id_)

    @invariant()
    def nobody_is_lost_or_invented(self) -> None:
        assert len(self.gate) == len(self.inside) <= self.CAPACITY


TestAnyUse = AnyUse.TestCase
TestAnyUse.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


def test_what_was_served_here_is_told_once_without_lifts_and_without_what_was_served_elsewhere() -> None:
    gate = gate_of(job("waits", tenant="a"))
    gate.begins("a", "tool", 80.0, 0.0)
    gate.begins("b", "heavy", 80.0, 0.0)
    gate.ends("a", "tool", -30.0, 0.0)
    gate.shares.charge("tool/c", 1000.0)
    assert gate.shares.drain(10) == {"tool/a": 50.0, "heavy/b": 80.0}
    assert gate.shares.drain(10) == {}


def test_what_many_tenants_were_served_is_told_in_parts_and_within_a_bound() -> None:
    shares = Shares()
    for number in range(10_002):
        shares.serve(str(number), 1.0)
    parts = list(iter(lambda: shares.drain(4_000), {}))
    assert [len(part) for part in parts] == [4_000, 4_000, 2_000]
    assert "1" not in parts[0]
    assert {tenant: tokens for part in parts for tenant, tokens in part.items()}["10001"] == 1.0


def test_lately_are_those_that_were_last_served_or_began_to_wait() -> None:
    shares = Shares()
    for tenant in "abc":
        shares.serve(tenant, 1.0)
    shares.joins("a")
    assert shares.lately(2) == ["a", "c"]


def test_a_tenant_that_was_served_elsewhere_stands_back_here() -> None:
    gate = gate_of(*(job(f"greedy{i}", CHAT, tenant="greedy") for i in range(3)), job("modest", CHAT, tenant="modest"))
    gate.shares.charge("chat/greedy", 1000.0)
    assert released(gate)[0] == "modest"
