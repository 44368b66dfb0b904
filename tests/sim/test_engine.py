from dataclasses import replace
from math import inf

import pytest

from support.policies import ordered, plan
from support.sim import FLAT, TINY, simulate, single
from tempo_core.policies import POLICIES
from tempo_core.slo import Objectives, Pattern, SLOClass
from tempo_core.snapshot import Job, Settings
from tempo_sim.batch import Live
from tempo_sim.engine import Replica
from tempo_sim.kv import Holding

SLO = SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=1.0, tbt_s=0.1))
CLASSES = {"chat": SLO}


def live(id, prompt, output, prefix=()):
    return Live(Job(id, SLO, arrival_s=0.0, prompt_tokens=prompt, max_tokens=64), output, Holding(id, tuple(prefix)))


def replica(profile=FLAT, policy=POLICIES["fcfs"], **options):
    return Replica(profile, policy, Settings(), **options)


def served(engine):
    ended = []
    while engine.busy:
        ended += engine.advance(inf)
    return ended


def test_two_requests_take_the_time_that_one_works_out_by_hand():
    engine, one, two = replica(), live("one", 10, 3), live("two", 6, 2)
    engine.submit(one, 0.0)
    assert engine.advance(0.005) == []
    engine.submit(two, 0.005)  # during the first step
    assert served(engine) == [one, two]
    # Prefill of 10; a decode and a prefill of 6; two decodes.
    assert one.stamps == pytest.approx([0.020, 0.037, 0.049])
    assert two.stamps == pytest.approx([0.037, 0.049])
    assert (engine.counts.steps, engine.counts.prefilled_tokens) == (3, 16)


def test_context_and_squared_prompts_cost_what_the_profile_says():
    engine, one = replica(TINY), live("one", 10, 3)
    engine.submit(one, 1.0)
    served(engine)
    first_s = 1.0 + 0.010 + 0.010 + 100e-6
    assert one.stamps == pytest.approx(
        [first_s, first_s + 0.011 + 10 * 1e-5, first_s + 2 * 0.011 + (10 + 11) * 1e-5],
    )


def test_a_prompt_over_the_budget_is_computed_in_chunks_that_cost_no_less_together():
    engine, one = replica(TINY), live("one", 70, 1)
    engine.submit(one, 0.0)
    served(engine)
    assert engine.counts.steps == 3
    assert one.stamps == pytest.approx([3 * 0.010 + 70 * 0.001 + 70**2 * 1e-6])


def test_decodes_are_served_before_prompts():
    engine, one, two = replica(), live("one", 4, 20), live("two", 60, 1)
    engine.submit(one, 0.0)
    engine.advance(0.001)
    engine.submit(two, 0.001)
    served(engine)
    # 60 tokens of prompt beside one decode take two steps: 31 and 29.
    assert one.stamps[1] - one.stamps[0] == pytest.approx(0.010 + 0.001 + 0.031)
    assert two.stamps == pytest.approx([one.stamps[2]])


def test_first_come_is_first_served():
    units = [single(f"u{index}", at_s=0.001 * index, prompt=5 + index % 7, output=3) for index in range(20)]
    result = simulate(units, CLASSES, POLICIES["fcfs"], replace(FLAT, max_places=1))
    first_s = [unit.arrival_s + unit.ttft_s for unit in result.units]
    assert first_s == sorted(first_s)


def test_the_batch_never_has_more_requests_than_places():
    most = []

    def spying(snapshot, now_s):
        most.append(sum(entry.running for entry in snapshot.entries))
        return POLICIES["fcfs"](snapshot, now_s)

    simulate([single(f"u{index}", output=9) for index in range(12)], CLASSES, spying, FLAT, frame_steps=1)
    assert max(most) == FLAT.max_places


def test_a_plans_limits_are_kept():
    seen = []

    def two_places(snapshot, now_s):
        seen.append(sum(entry.running for entry in snapshot.entries))
        return plan(snapshot, token_budget=5, max_running=2)

    engine, one = replica(policy=two_places, frame_steps=1), live("one", 20, 1)
    for request in (one, live("two", 1, 9), live("three", 1, 9), live("four", 1, 9)):
        engine.submit(request, 0.0)
    served(engine)
    assert max(seen) == 2
    assert one.stamps[0] == pytest.approx(4 * 0.015)  # five tokens a step


def test_when_memory_runs_out_the_last_in_order_computes_again():
    # Eight blocks of four hold 32 tokens; both together come to 40.
    engine, one, two = replica(replace(FLAT, kv_blocks=8)), live("one", 8, 12), live("two", 8, 12)
    engine.submit(one, 0.0)
    engine.submit(two, 0.0)
    assert served(engine) == [one, two]
    assert engine.counts.memory_preemptions == 1
    assert (len(one.stamps), len(two.stamps)) == (12, 12)
    # Both had 16 tokens in the cache when the memory was used up; of the second's 17, the first then took one block.
    assert engine.counts.cached_tokens + engine.counts.prefilled_tokens == 8 + 8 + 17
    assert engine.counts.cached_tokens == 12
    assert two.stamps[-1] > one.stamps[-1]


def test_who_lost_its_place_to_memory_does_not_overtake_who_ranks_before_it():
    engine = replica(replace(FLAT, kv_blocks=8), ordered(lambda entry: entry.job.id))
    b, c = live("b", 8, 12), live("c", 8, 12)
    engine.submit(b, 0.0)
    engine.submit(c, 0.0)
    engine.advance(0.05)
    a = live("a", 4, 2)
    engine.submit(a, engine.now_s)
    served(engine)
    assert a.stamps[-1] < b.stamps[-1] < c.stamps[-1]


def test_a_shared_prefix_is_computed_once():
    engine = replica(TINY)
    one, two = live("one", 13, 2, (1, 2, 3)), live("two", 14, 2, (1, 2, 3))
    for request in (one, two):
        engine.submit(request, engine.now_s)
        served(engine)
    assert (engine.counts.prefilled_tokens, engine.counts.cached_tokens) == (13 + 2, 12)
    assert two.stamps[0] - one.stamps[-1] < one.stamps[0]


def test_the_policy_sees_what_the_cache_would_save_those_who_wait():
    seen = []

    def policy(snapshot, _):
        seen.append({entry.job.id: entry.computed for entry in snapshot.entries})
        return plan(snapshot, max_running=1)

    engine = replica(TINY, policy, frame_steps=1)
    for name, prefix in (("one", (1, 2, 3)), ("like it", (1, 2, 4)), ("another", (5, 6, 7))):
        engine.submit(live(name, 13, 2, prefix), 0.0)
    served(engine)
    assert seen[0] == {"one": 0, "like it": 0, "another": 0}
    assert seen[1] == {"one": 13, "like it": 8, "another": 0}


def test_requests_of_one_step_share_a_prefix_too():
    engine = replica(TINY)
    for name in ("one", "two"):
        engine.submit(live(name, 13, 2, (1, 2, 3)), 0.0)
    served(engine)
    assert (engine.counts.steps, engine.counts.cached_tokens) == (2, 12)


def test_a_plans_victim_waits_behind_all_others_until_the_next_plan():
    victims = []

    def against_the_first(snapshot, _):
        running = [entry.job.id for entry in snapshot.entries if entry.running]
        preempt = ["one"] if "one" in running and not victims else []
        victims.extend(preempt)
        return plan(snapshot, preempt=preempt, max_running=1)

    engine, one, two = replica(policy=against_the_first, frame_steps=5), live("one", 4, 12), live("two", 4, 3)
    engine.submit(one, 0.0)
    engine.submit(two, 0.0)
    served(engine)
    assert victims == ["one"]
    assert two.stamps[-1] < one.stamps[-1]
    assert (engine.counts.planned_preemptions, engine.counts.memory_preemptions) == (1, 0)
    assert one.stamps[0] < two.stamps[0]


def test_the_policy_runs_once_a_frame_where_nothing_changes():
    engine = replica(frame_steps=10)
    engine.submit(live("one", 4, 41), 0.0)
    served(engine)
    assert (engine.counts.steps, engine.counts.passes) == (41, 5)


def test_the_policy_runs_early_where_something_changed_and_passes_are_cheap():
    engine = replica(frame_steps=1000)
    engine.submit(live("one", 4, 40), 0.0)
    engine.advance(0.001)
    engine.submit(live("two", 4, 2), 0.001)
    served(engine)
    assert engine.counts.passes == 3  # at the start, for the newcomer, and when that one has ended


def test_the_policy_sees_caps_and_predictions_but_never_how_long_an_answer_will_be():
    def seen(output):
        rows = []

        def spying(snapshot, now_s):
            rows.append([entry.job.row.tolist() for entry in snapshot.entries])
            return POLICIES["fcfs"](snapshot, now_s)

        simulate([single("u", output=output)], CLASSES, spying, FLAT)
        return rows[0]

    assert seen(5) == seen(50)


def test_the_step_time_model_is_learned_from_the_steps():
    models = []

    def spying(snapshot, now_s):
        models.append(snapshot.step_time)
        return POLICIES["fcfs"](snapshot, now_s)

    units = [single(f"u{index}", at_s=0.03 * index, prompt=4 + index * 7 % 50, output=30) for index in range(100)]
    simulate(units, CLASSES, spying, FLAT)
    assert models[0] != models[-1]
    assert models[-1].seconds(3, 20, 100) == pytest.approx(FLAT.step_s(3, 100, 20, 0), rel=0.05)


def test_a_better_newcomer_shares_the_budget_with_a_long_prompt():
    engine = replica(policy=ordered(lambda entry: entry.job.prompt_tokens))
    long, short = live("long", 80, 1), live("short", 6, 1)
    engine.submit(long, 0.0)
    engine.advance(0.001)
    engine.submit(short, 0.001)
    served(engine)
    assert short.stamps[0] < long.stamps[0]


def test_an_idle_engine_takes_up_a_request_when_it_arrives():
    result = simulate([single("u", at_s=7.0)], CLASSES, POLICIES["fcfs"], FLAT)
    assert result.units[0].ttft_s == pytest.approx(0.018)
