"""What is compared, and what each is told."""

from dataclasses import replace

import pytest

from support.sim import CLASSES, FLAT, TINY, call, program, simulate, single
from tempo_core.lengths import GRID
from tempo_core.policies import POLICIES
from tempo_core.programs import Call
from tempo_core.slo import GainRule, Objectives, Pattern, SLOClass
from tempo_core.snapshot import COLUMNS, Entry, Job, Plan, Snapshot
from tempo_sim.contenders import ABLATIONS, CONTENDERS, GROUPS, ORACLE
from tempo_sim.lengths import PointLengths, UnknownLengths, WindowLengths
from tempo_sim.profiles import PROFILES
from tempo_sim.programs import OracleGraphs
from tempo_sim.workload import SimCall, SimUnit


def test_all_is_every_policy_and_the_oracle_and_an_ablation_begins_with_what_it_is_held_to():
    assert GROUPS["all"] == (*POLICIES, ORACLE)
    assert GROUPS["ablation"] == ("fcfs", "tempo", *ABLATIONS)
    assert set(CONTENDERS) == {*GROUPS["all"], *GROUPS["ablation"]}


def test_without_lengths_nothing_is_ever_learned():
    known, unknown = WindowLengths(), UnknownLengths(WindowLengths())
    for _ in range(64):
        for model in (known, unknown):
            model.learn("chat", call(10, 7, cap=500))
    assert known.predict("chat", call(10, 7, cap=500))[3] == 7.0
    assert unknown.predict("chat", call(10, 7, cap=500))[3] > 50.0


def test_without_refinement_there_is_one_length_the_median():
    window = WindowLengths()
    for tokens in range(1, 101):
        window.learn("chat", call(10, tokens, cap=500))
    grid = PointLengths(window).predict("chat", call(10, 7, cap=500))
    assert grid == (window.predict("chat", call(10, 7, cap=500))[GRID.index(0.5)],) * len(GRID)


def test_without_preemption_and_budgets_the_rest_of_the_plan_stands():
    plans: list[tuple[Plan, Plan, Plan]] = []

    def comparing(snapshot, now_s):
        names = ("tempo", "tempo-no-preemption", "tempo-no-budgets")
        made = tuple(CONTENDERS[name].policy(snapshot, now_s) for name in names)
        plans.append((*made, snapshot))
        return made[0]

    batches = [single(f"batch{i}", 0.0, "batch", output=60) for i in range(TINY.max_places)]
    simulate([*batches, single("chat", 0.05)], CLASSES, comparing, TINY)
    for whole, kept, wide, snapshot in plans:
        assert kept == replace(whole, preempt=())
        assert wide == replace(whole, token_budget=snapshot.max_step_tokens, max_running=snapshot.max_running)
    assert any(whole.preempt for whole, *_ in plans)


def test_without_the_cache_a_session_s_next_turn_costs_as_much_as_a_first_one():
    slo = SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=1.0))
    facts = {"arrival_s": 0.0, "prompt_tokens": 900, "max_tokens": 8, "deadline_s": 1.0}
    snapshot = Snapshot([Entry(Job("first", slo, **facts)), Entry(Job("next", slo, **facts), computed=896)], 1, 512)
    orders = [CONTENDERS[name].policy(snapshot, 0.9).order for name in ("tempo", "tempo-no-cache")]
    assert orders == [["next", "first"], ["first", "next"]]


def test_the_oracle_knows_what_is_to_come_of_a_program():
    unit = program("p", 0.0, [call(100, 5)] * 3, [call(50, 20), call(40, 10)], [call(30, 7)])
    graphs, slo = OracleGraphs([unit]), SLOClass("agent", Pattern.COLLECTIVE, Objectives(end_to_end_s=100.0))
    told = [graphs.begin(Call("p", stage, 0.0, 100.0, 0.0), slo, 1, 0.0) for stage in range(3)]
    assert [f.latest_s for f in told] == pytest.approx([100.0 - 0.03 * 27, 100.0 - 0.03 * 7, 100.0])
    assert [f.output_tokens_left for f in told] == [37.0, 7.0, 0.0]
    assert [f.prompt_tokens_left for f in told] == [120.0, 30.0, 0.0]
    assert [f.due_s for f in told] == pytest.approx([100 * 5 / 32, 100 * 20 / 27, 100.0])


@pytest.mark.parametrize(("name", "expected"), [(ORACLE, 9.0), ("tempo", 0.0), ("tempo-no-graphs", 0.0)])
def test_only_the_oracle_knows_a_programs_later_stages_before_any_program_has_ended(name, expected):
    told = []

    def watching(snapshot, now_s):
        told.extend(entry.job.row[COLUMNS.index("later_output")] for entry in snapshot.entries)
        return POLICIES["fcfs"](snapshot, now_s)

    units = [program("p", 0.0, [call(4, 3)], [call(4, 9)])]
    graphs = CONTENDERS[name].graphs
    simulate(units, CLASSES, watching, FLAT, graphs=graphs(units) if graphs else None)
    assert told[0] == expected


def test_where_long_work_without_a_promise_fills_the_engine_preemption_keeps_streams_in_time():
    engine = replace(PROFILES["llama-3.1-8b-h100"], max_places=8)
    classes = {
        "chat": SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=2.0, tbt_s=0.1)),
        "batch": SLOClass("batch", Pattern.BEST_EFFORT, gain=GainRule(weight=0.25)),
    }
    batch = [SimUnit(f"batch{i}", "batch", 0.1 * i, ((SimCall(600, 6000, 8192),),)) for i in range(12)]
    chats = [SimUnit(f"chat{i}", "chat", 5.0 + 2.0 * i, ((SimCall(100, 200, 1024),),)) for i in range(15)]

    def kept(name):
        units = simulate(batch + chats, classes, CONTENDERS[name].policy, engine, block_tokens=16).units
        return sum(unit.attained for unit in units if unit.slo_class == "chat")

    assert kept("tempo") >= 0.8 * len(chats)  # at first nothing tells how long the batch will be
    assert kept("tempo-no-preemption") <= len(chats) / 2
