from dataclasses import replace
from itertools import pairwise
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.sim import CLASSES, FLAT, TINY, call, program, simulate, single, workloads
from tempo_core.gain import ProgramLedger, RequestLedger
from tempo_core.graphs import PatternGraphs
from tempo_core.lengths import remaining
from tempo_core.policies import POLICIES
from tempo_core.slo import Objectives, SLOClass
from tempo_core.snapshot import COLUMNS, table
from tempo_sim.lengths import OracleLengths, answer_tokens

FEW, SOME = settings(max_examples=10), settings(max_examples=40)
ANY_POLICY = st.sampled_from(list(POLICIES.values()))
FCFS = POLICIES["fcfs"]
EVERY_POLICY = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


def spied(policy, profile):
    """The policy, and a look at what it is shown: the engine never holds more than it has."""

    def spying(snapshot, now_s):
        running = [entry for entry in snapshot.entries if entry.running]
        assert len(running) <= profile.max_places
        # What is shared is counted once for each that shares it, so only the largest is sure to be held.
        assert max((entry.computed for entry in running), default=0) <= profile.kv_tokens
        assert all(entry.computed <= entry.job.prompt_tokens + entry.generated for entry in running)
        waiting = [entry for entry in snapshot.entries if not entry.running]
        assert all(entry.computed < entry.job.prompt_tokens + entry.generated for entry in waiting)
        assert all(entry.computed % profile.block_size == 0 for entry in waiting)
        return policy(snapshot, now_s)

    return spying


@EVERY_POLICY
@FEW
@given(units=workloads(), replicas=st.integers(1, 3))
def test_every_unit_ends_once_with_exactly_its_tokens(policy, units, replicas):
    result = simulate(units, CLASSES, spied(policy, TINY), TINY, replicas=replicas)
    assert [unit.id for unit in result.units] == [unit.id for unit in units]
    for unit, ended in zip(units, result.units, strict=True):
        assert ended.output_tokens == sum(answer_tokens(call) for call in unit.calls)
        assert ended.prompt_tokens == sum(call.prompt_tokens for call in unit.calls)
        assert ended.calls == len(unit.calls)
        assert ended.ended_s == pytest.approx(ended.arrival_s + ended.ttlt_s)
    done = sum(counts.prefilled_tokens + counts.cached_tokens for counts in result.replicas)
    # What is left of a prompt that is in the cache but for one token counts as a decode.
    assert done >= sum(call.prompt_tokens - 1 for unit in units for call in unit.calls)


@SOME
@given(units=workloads(), policy=ANY_POLICY, replicas=st.integers(1, 3), frame_steps=st.sampled_from([1, 7, 20]))
def test_taking_steps_together_changes_nothing(units, policy, replicas, frame_steps):
    options = {"replicas": replicas, "frame_steps": frame_steps}
    together = simulate(units, CLASSES, policy, TINY, **options)
    assert together == simulate(units, CLASSES, policy, TINY, **options, coasting=False)


@FEW
@given(units=workloads(), policy=ANY_POLICY)
def test_a_run_is_a_function_of_its_arguments(units, policy):
    oracle = OracleLengths()
    assert simulate(units, CLASSES, policy, TINY, lengths=oracle) == simulate(
        list(units), CLASSES, policy, TINY, lengths=oracle
    )


@FEW
@given(units=workloads(), policy=ANY_POLICY)
def test_no_request_is_served_faster_than_alone(units, policy):
    profile = replace(FLAT, kv_blocks=1000)
    result = simulate(units, CLASSES, policy, profile)
    for unit, ended in zip(units, result.units, strict=True):
        alone = simulate([replace(unit, at_s=0.0)], CLASSES, policy, profile)
        shared = any(call.prefix for call in unit.calls)
        assert shared or ended.ttlt_s >= alone.units[0].ttlt_s - 1e-9


def ledger_gain(slo, arrival_s, stamps, prompt):
    ledger = RequestLedger(slo, arrival_s)
    for at_s in stamps:
        ledger.tokens(at_s, 1)
    return ledger.finish(stamps[-1], prompt).gain


def hard(slo):
    return replace(slo, gain=replace(slo.gain, decay=inf))


@pytest.mark.parametrize("name", ["chat", "strict", "tool", "batch"])
def test_gain_is_what_the_ledgers_say(name):
    # Alone, on an engine that takes 11 ms a token: the stamps are known.
    slo, slow = CLASSES[name], replace(FLAT, decode_base_s=0.04, prefill_base_s=0.2)
    unit = simulate([single("u", 2.0, name, prompt=20, output=15)], CLASSES, FCFS, slow).units[0]
    stamps = [2.0 + 0.2 + 0.020 + 0.041 * index for index in range(15)]
    assert unit.gain == pytest.approx(ledger_gain(slo, 2.0, stamps, 20))
    assert unit.goodput == pytest.approx(ledger_gain(hard(slo), 2.0, stamps, 20))
    on_time = {"chat": 8, "strict": 8, "tool": 0, "batch": 35}[name]
    assert unit.goodput_tokens == on_time
    if name in {"chat", "strict"}:
        assert unit.ttft_s == pytest.approx(0.22)
        assert unit.tbt_s == pytest.approx(0.041)
        assert list(unit.gaps_s) == pytest.approx([later - earlier for earlier, later in pairwise(stamps)])
    else:
        assert (unit.ttft_s, unit.tbt_s, len(unit.gaps_s)) == (None, None, 0)


def test_a_program_earns_what_its_ledger_says():
    unit = program("p", 1.0, [call(8, 5), call(4, 2)], [call(6, 3, delay_s=0.5)])
    result = simulate([unit], CLASSES, FCFS, FLAT).units[0]
    # Two prompts at once, then four decodes of which one has company; a tool for half a second; the second stage.
    first_s = 1.0 + 0.022 + 0.012 + 3 * 0.011
    end_s = first_s + 0.5 + 0.016 + 2 * 0.011
    assert result.ttlt_s == pytest.approx(end_s - 1.0)
    ledger = ProgramLedger(CLASSES["agent"], 1.0)
    for stage, prompt, output in ((0, 8, 5), (0, 4, 2), (1, 6, 3)):
        request = RequestLedger(CLASSES["agent"], 1.0)
        request.tokens(end_s, output)
        ledger.call_ended(request.finish(end_s, prompt), end_s, stage)
    assert result.gain == ledger.finish().gain
    assert result.attained
    assert result.goodput_tokens == 28


def test_a_stage_starts_when_the_one_before_it_has_ended():
    arrivals = {}

    def spying(snapshot, now_s):
        arrivals.update({entry.job.id: entry.job.arrival_s for entry in snapshot.entries})
        return FCFS(snapshot, now_s)

    unit = program("p", 0.0, [call(4, 1), call(4, 6)], [call(4, 1, delay_s=0.25)], [call(4, 1)])
    simulate([unit], CLASSES, spying, FLAT)
    assert arrivals["p/2"] == pytest.approx(0.018 + 5 * 0.011 + 0.25)
    assert arrivals["p/3"] == pytest.approx(arrivals["p/2"] + 0.014)


def test_the_policy_is_told_of_a_program_what_the_router_knows():
    facts = {}

    def spying(snapshot, now_s):
        for entry in snapshot.entries:
            columns = dict(zip(("due", "from", "banked"), entry.job.row[[6, 7, 12]].tolist(), strict=True))
            facts[entry.job.id] = (entry.job.program, columns)
        return FCFS(snapshot, now_s)

    simulate([program("p", 1.0, [call(4, 2)], [call(4, 2)])], CLASSES, spying, FLAT)
    assert facts["p/0"] == ("p", {"due": 1.4, "from": 1.0, "banked": 0.0})
    assert facts["p/1"] == ("p", {"due": 1.8, "from": 1.0, "banked": 8.0})


def test_a_program_whose_calls_come_apart_stays_one_program():
    result = simulate([program("p", 0.0, [call(4, 1), call(4, 1, delay_s=1.0)])], CLASSES, FCFS, FLAT)
    assert (len(result.units), result.units[0].calls) == (1, 2)
    assert result.units[0].ttlt_s == pytest.approx(1.014)


def test_an_answer_stops_at_its_cap():
    assert simulate([single("u", output=50, cap=7)], CLASSES, FCFS, FLAT).units[0].output_tokens == 7


def test_replicas_share_the_load():
    units = [single(f"u{index}", slo_class="batch", prompt=8, output=30) for index in range(24)]
    one = simulate(units, CLASSES, FCFS, FLAT)
    three = simulate(units, CLASSES, FCFS, FLAT, replicas=3)
    assert len(three.replicas) == 3
    assert len({counts.prefilled_tokens for counts in three.replicas}) == 1
    assert three.duration_s < 0.45 * one.duration_s
    assert (three.steps, three.passes) == tuple(
        sum(getattr(counts, name) for counts in three.replicas) for name in ("steps", "passes")
    )


def test_a_program_stays_where_its_prefix_is():
    prefix = tuple(range(5))
    stages = [[call(21, 4, prefix=prefix)] for _ in range(6)]
    result = simulate([program("p", 0.0, *stages)], CLASSES, FCFS, TINY, replicas=4)
    assert sum(counts.cached_tokens for counts in result.replicas) == 5 * 20


def test_an_oracle_shows_the_policy_the_truth():
    grids = []

    def spying(snapshot, now_s):
        generated = np.array([float(snapshot.entries[0].generated)])
        grids.append([x.item() for x in remaining(table(snapshot.entries)[1], generated, 0.5)])
        return FCFS(snapshot, now_s)

    simulate([single("u", output=23)], CLASSES, spying, FLAT, lengths=OracleLengths())
    assert grids[0] == pytest.approx([23.0, 23.0], rel=0.06)  # the mean takes what is below the 10% quantile as even


def test_a_run_of_nothing_is_over_at_once():
    result = simulate([], CLASSES, FCFS, FLAT)
    assert (result.units, result.duration_s, result.steps, result.preemptions) == ((), 0.0, 0, 0)


@pytest.mark.parametrize(
    ("units", "says"),
    [
        ([single("u"), single("u")], "unit 'u' has the id of another"),
        ([single("u", slo_class="gold")], "unit 'u' is of class 'gold'; there are agent, batch, chat, strict, tool"),
        ([replace(program("u", 0.0, [call()], [call()]), slo_class="tool")], "has 2 calls, which takes a Collective"),
        ([program("u", 0.0, [])], "has no calls"),
        ([program("u", 0.0)], "has no calls"),
        ([single("u", prompt=0)], "a call without a token"),
        ([single("u", prompt=90, output=7)], "longer than the 96 tokens that tiny can hold"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(units, says):
    with pytest.raises(ValueError, match=says):
        simulate(units, CLASSES, FCFS, TINY)


def test_a_run_needs_a_replica():
    with pytest.raises(ValueError, match="needs a replica, not 0"):
        simulate([], CLASSES, FCFS, TINY, replicas=0)


def test_a_class_of_the_plain_kind_is_enough():
    result = simulate([single("u", slo_class="x")], {"x": SLOClass("x", CLASSES["batch"].pattern)}, FCFS, TINY)
    assert result.units[0].attained


def test_small_blocks_of_a_workload_make_up_the_engines_large_ones():
    # Blocks of two in an engine with blocks of four: six tokens in common are one block that is.
    units = [
        single("a", 0.0, "batch", prompt=11, output=1, prefix=(1, 2, 3, 4)),
        single("b", 1.0, "batch", prompt=11, output=1, prefix=(1, 2, 3, 5)),
    ]
    result = simulate(units, CLASSES, FCFS, TINY, block_tokens=2)
    assert result.replicas[0].cached_tokens == 4


def test_blocks_that_make_up_no_block_of_the_engine_are_refused():
    with pytest.raises(ValueError, match="tiny has blocks of 4 tokens, no multiple of 3"):
        simulate([], CLASSES, FCFS, TINY, block_tokens=3)


def test_a_policy_is_told_what_a_programs_finished_calls_attained_along_its_longest_chain():
    told = {}

    def watching(snapshot, now_s):
        jobs = [entry.job for entry in snapshot.entries]
        told.update({job.id: (job.attained_tokens, job.critical_tokens) for job in jobs})
        return FCFS(snapshot, now_s)

    unit = program("p", 0.0, (call(10, 4), call(10, 9)), (call(10, 5),), (call(10, 2),))
    simulate([unit], CLASSES, watching, TINY)
    assert told == {"p/0": (0, 0), "p/1": (0, 0), "p/2": (13, 9), "p/3": (18, 14)}


def test_a_policy_is_told_who_lost_its_place_and_what_the_cache_holds():
    told = []

    def displacing(snapshot, now_s):
        told.append((dict(snapshot.preempted), snapshot.cache_tokens))
        first = snapshot.entries[0].job.id
        plan = FCFS(snapshot, now_s)
        return replace(plan, preempt=[first]) if snapshot.entries[0].running and len(told) == 3 else plan

    simulate([single("a", prompt=10, output=60)], CLASSES, displacing, TINY)
    assert told[0] == ({}, TINY.kv_tokens)
    assert told[-1][0] == {"a": 1}


def test_graphs_learn_from_programs_that_end_and_then_set_their_sub_deadlines():
    """Programs alike, one after the other: a short first stage is due earlier than its class would have it."""
    due, later = {}, {}
    classes = CLASSES | {"agent": replace(CLASSES["agent"], objectives=Objectives(end_to_end_s=0.8))}

    def watching(snapshot, now_s):
        for job, *_ in snapshot.entries:
            due[job.id] = job.deadline_s - job.program_arrival_s
            later[job.id] = job.row[COLUMNS.index("later_output")]
        return FCFS(snapshot, now_s)

    units = [program(f"p{i}", 20.0 * i, (call(8, 2),), (call(8, 30),)) for i in range(12)]
    graphs = PatternGraphs()
    simulate(units, classes, watching, TINY, graphs=graphs)
    assert due["p0/0"] == pytest.approx(0.8)
    assert due["p11/0"] < 0.5 * due["p11/1"]
    assert due["p11/1"] <= 0.8 * (1.0 + 1e-9)
    assert (later["p0/0"], later["p11/0"], later["p11/1"]) == (0.0, pytest.approx(30.0, rel=0.1), 0.0)
    assert graphs.graphs >= 1
    assert graphs.running == 0
