"""What the papers of the policies that put requests in order claim of them."""

import random
from itertools import product
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.baselines import BATCH, CHAT, STEP, TOOL, UNIT, Watched, job, line, running, snapshot, waiting
from support.batch import SETTINGS, serve
from tempo_core.policies import POLICIES
from tempo_core.slo import GainRule, Objectives, Pattern, SLOClass
from tempo_core.snapshot import Entry, Job, Reason, Settings

edf, sjf, srtf, plas, atlas, vtc, llmd, smg, qlm = (
    POLICIES[name] for name in ("edf", "sjf", "srtf", "plas", "atlas", "vtc", "llmd", "smg", "qlm")
)

# -- a single machine ---------------------------------------------------------------------------------------------

tasks = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5), st.integers(0, 12)), min_size=1, max_size=6)
"""Tasks as (release, size, spare time); each is due when it could end at once, and the spare time later."""


def completions(policy, tasks) -> dict[int, float]:
    """When each task ends on one machine that takes a second for a token."""
    jobs = [
        job(str(i), TOOL, release, output=size, prompt=1, deadline_s=release + size + spare)
        for i, (release, size, spare) in enumerate(tasks)
    ]
    arrivals = [(a_job, size) for a_job, (_, size, _) in zip(jobs, tasks, strict=True)]
    outcomes = serve(policy, arrivals, places=1, budget=10_000, step=UNIT).outcomes
    return {i: release + outcomes[str(i)].ttlt_s for i, (release, _, _) in enumerate(tasks)}


def kept(policy, tasks) -> bool:
    ends = completions(policy, tasks)
    return all(ends[i] <= release + size + spare for i, (release, size, spare) in enumerate(tasks))


def feasible(tasks) -> bool:
    """Whether some schedule meets every deadline: no interval has to hold more work than it is long."""
    windows = [(release, release + size + spare, size) for release, size, spare in tasks]
    return all(
        sum(size for release, due, size in windows if release >= start and due <= end) <= end - start
        for (start, _, _), (_, end, _) in product(windows, windows)
        if start < end
    )


@settings(max_examples=40)
@given(tasks)
def test_edf_meets_every_set_of_deadlines_that_one_machine_can_meet(tasks) -> None:
    assert kept(edf, tasks) == feasible(tasks)


def test_edf_meets_deadlines_that_arrival_order_misses() -> None:
    tasks = [(0, 5, 5), (1, 2, 0)]
    assert kept(edf, tasks)
    assert not kept(POLICIES["fcfs"], tasks)


@settings(max_examples=40)
@given(tasks)
def test_shortest_remaining_time_first_has_the_least_mean_completion_time(tasks) -> None:
    mean = {name: fmean(completions(POLICIES[name], tasks).values()) for name in ("fcfs", "sjf", "edf", "srtf")}
    assert mean["srtf"] == min(mean.values())


def test_a_long_response_that_runs_gives_way_to_short_ones_and_not_the_other_way_round() -> None:
    tasks = [(0, 20, 0), (1, 2, 0), (2, 2, 0), (2, 30, 0)]
    assert completions(srtf, tasks) == {0: 24, 1: 3, 2: 5, 3: 54}
    assert completions(sjf, tasks) == {0: 20, 1: 22, 2: 24, 3: 54}


# -- edf, sjf, srtf -----------------------------------------------------------------------------------------------


def test_edf_has_best_effort_last_and_a_stream_due_with_its_first_token() -> None:
    facts = snapshot(waiting("batch"), waiting("tool", TOOL), waiting("chat", CHAT, 6.0), waiting("old", TOOL, -2.0))
    assert line(edf(facts, 6.0)) == "old chat tool batch"


def test_a_stream_that_has_begun_is_not_displaced_by_later_ones() -> None:
    facts = snapshot(running("begun", CHAT, 0.0, generated=90), waiting("new", CHAT, 5.0))
    assert edf(facts, 5.0).preempt == ()


def test_the_shortest_prediction_goes_first_and_who_runs_keeps_its_place() -> None:
    facts = snapshot(running("long", output=900), waiting("mid", output=300), waiting("short", CHAT, 9.0, output=9))
    made = sjf(facts, 9.0)
    assert line(made) == "long short mid"
    assert made.preempt == ()


def test_remaining_time_counts_what_a_preempted_request_must_compute_again() -> None:
    cached = Entry(job("cached", output=100, prompt=4000), 90, 4089, True, 0.0)
    evicted = Entry(job("evicted", output=100, prompt=4000), 90)
    facts = snapshot(cached, evicted, waiting("new", output=40))
    assert line(srtf(facts, 1.0)) == "cached new evicted"


# -- Autellix -----------------------------------------------------------------------------------------------------


def call(id: str, arrival_s: float = 0.0, attained: float = 0.0, **facts) -> Entry:
    return waiting(id, TOOL, arrival_s, program=id, attained_tokens=attained, **facts)


def test_a_short_program_overtakes_a_long_one() -> None:
    facts = snapshot(call("long", 0.0, 4000), call("middle", 1.0, 800), call("short", 2.0, 100))
    assert line(plas(facts, 3.0)) == "short middle long"


def test_programs_in_one_queue_go_by_arrival_and_do_not_preempt_each_other() -> None:
    facts = snapshot(running("first", TOOL, 0.0, attained_tokens=399, generated=0), call("second", 1.0, 1))
    assert line(plas(facts, 2.0)) == "first second"
    assert plas(facts, 2.0).preempt == ()


def test_a_call_goes_down_a_queue_with_every_bin_it_takes_and_loses_its_place_to_a_better_queue() -> None:
    new = call("new", 9.0)
    assert plas(snapshot(running("old", TOOL, generated=399), new), 10.0).preempt == ()
    assert plas(snapshot(running("old", TOOL, generated=400), new), 10.0).preempt == ("old",)


def test_a_starved_program_goes_up_and_stays_until_it_has_had_another_bin() -> None:
    rivals = [call(f"new{i}", 200.0) for i in range(3)]
    token_s = STEP.seconds(0)
    after = 0.1 + 9.0 * 400 * token_s
    asked = {"attained_tokens": 500, "program_arrival_s": 0.0}
    assert line(plas(snapshot(waiting("old", TOOL, 50.0, **asked), *rivals), after - 1.0)).endswith("old")
    made = plas(snapshot(waiting("old", TOOL, 50.0, **asked), *rivals), after)
    assert line(made).startswith("old")
    assert made.reasons["old"] is Reason.AGED
    begun = plas(snapshot(running("old", TOOL, 50.0, generated=299, **asked), *rivals), after + 10.0)
    assert begun.preempt == ()
    spent = plas(snapshot(running("old", TOOL, 50.0, generated=300, **asked), *rivals), after + 10.0)
    assert spent.preempt == ("old",)


def test_a_wide_program_is_held_back_by_plas_for_its_width_and_not_by_atlas() -> None:
    wide = call("wide", 0.0, 3000, critical_tokens=300)
    facts = snapshot(wide, call("narrow", 1.0, 900))
    assert line(plas(facts, 2.0)) == "narrow wide"
    assert line(atlas(facts, 2.0)) == "wide narrow"


def test_without_parallel_calls_atlas_is_plas() -> None:
    facts = snapshot(*(call(f"p{i}", float(i), 317.0 * (9 - i)) for i in range(10)), places=3)
    assert atlas(facts, 20.0) == plas(facts, 20.0)


def test_under_load_plas_ends_short_programs_sooner_than_arrival_order() -> None:
    rng = random.Random(5)
    arrivals: list[tuple[Job, int]] = []
    for i in range(36):
        long = i % 3 > 0
        facts = {"attained_tokens": 4000.0 if long else 0.0, "program": str(i)}
        output = 60 if long else 12
        arrivals.append((job(str(i), TOOL, 0.12 * i, prompt=rng.randint(5, 80), output=output, **facts), output))
    short_s = {
        name: fmean(serve(POLICIES[name], arrivals, places=4).outcomes[str(i)].ttlt_s for i in range(0, 36, 3))
        for name in ("fcfs", "plas")
    }
    assert short_s["plas"] < 0.3 * short_s["fcfs"]


# -- VTC ----------------------------------------------------------------------------------------------------------


def widest_gap(policy, arrivals, tuning=SETTINGS) -> float:
    """The most by which two tenants' service since the start differed while both had requests waiting."""
    watched, gap = Watched(policy), 0.0
    serve(watched, arrivals, places=4, budget=256, settings=tuning)
    for _, facts in watched.seen:
        if {entry.job.tenant for entry in facts.entries if not entry.running} == {"heavy", "light"}:
            gap = max(gap, abs(facts.served["heavy"] - facts.served["light"]))
    return gap


@pytest.mark.parametrize("policy", ["vtc", "tempo"])
@settings(max_examples=5)
@given(st.integers(0, 10**6))
def test_vtc_and_fair_tempo_bound_the_difference_in_service_of_two_backlogged_tenants(policy: str, seed: int) -> None:
    rng = random.Random(seed)
    arrivals = []
    for i in range(60):
        tenant = "light" if i % 4 == 0 else "heavy"
        prompt, output = (rng.randint(5, 60), rng.randint(1, 40)) if tenant == "heavy" else (rng.randint(5, 20), 5)
        arrivals.append((job(f"{i:02d}", BATCH, 0.01 * i, prompt=prompt, output=output, tenant=tenant), output))
    # Theorem 4.4: twice the larger of the longest input and what the running batch holds, by their weights.
    bound = 2 * max(1.0 * 60, 2.0 * 4 * (60 + 40))
    fair, unfair = (widest_gap(POLICIES[name], arrivals, Settings(fairness=1.0)) for name in (policy, "fcfs"))
    assert fair <= bound
    assert fair < unfair


def test_who_was_served_least_goes_next_and_pays_for_its_prompt_at_once() -> None:
    queue = [waiting(f"{tenant}{i}", prompt=100, tenant=tenant, arrival_s=i) for tenant in "ab" for i in range(3)]
    facts = snapshot(*queue, places=4, served={"a": 0.0, "b": 150.0})
    assert line(vtc(facts, 9.0)) == "a0 a1 b0 a2 b1 b2"


def test_without_counters_live_requests_count() -> None:
    facts = snapshot(
        running("r", prompt=10, generated=50, tenant="a"), waiting("a1", tenant="a"), waiting("b1", tenant="b")
    )
    assert line(vtc(facts, 1.0)) == "r b1 a1"


# -- gateways -----------------------------------------------------------------------------------------------------

VIP = SLOClass("vip", Pattern.LATENCY, Objectives(ttft_s=5.0, tbt_s=0.1), GainRule(weight=4.0))


def test_llmd_orders_bands_strictly_and_by_slo_deadline_inside() -> None:
    facts = snapshot(
        running("r"), waiting("batch"), waiting("tool", TOOL), waiting("late", CHAT, 3.0), waiting("vip", VIP, 3.0),
        waiting("early", CHAT, 2.5),
    )  # fmt: skip
    made = llmd(facts, 3.0)
    assert line(made) == "r vip early late tool batch"
    assert made.preempt == ()


def test_nothing_protects_best_effort_from_starving_in_llmds_bands() -> None:
    facts = snapshot(waiting("batch", BATCH, 0.0), waiting("chat", CHAT, 9_999.0))
    assert line(llmd(facts, 9_999.0)) == "chat batch"


def test_smg_serves_classes_in_order_and_each_by_arrival() -> None:
    facts = snapshot(waiting("b"), waiting("t2", TOOL, 2.0), waiting("c2", CHAT, 2.0), waiting("t1", TOOL, 1.0))
    assert line(smg(facts, 3.0)) == "c2 t1 t2 b"


@pytest.mark.parametrize(("now", "order"), [(4.0, "c t b"), (31.0, "t c b"), (121.0, "b t c")])
def test_the_head_of_a_class_that_waited_its_threshold_is_promoted_the_lowest_first(now: float, order: str) -> None:
    facts = snapshot(waiting("c", CHAT, now - 1.0), waiting("t", TOOL), waiting("b"))
    assert line(smg(facts, now)) == order


def test_only_the_head_is_promoted() -> None:
    facts = snapshot(waiting("c", CHAT, 199.0), waiting("b1", BATCH, 0.0), waiting("b2", BATCH, 1.0))
    assert line(smg(facts, 200.0)) == "b1 c b2"


def test_smg_clears_a_slot_only_of_who_has_brought_no_token_the_lowest_and_least_begun() -> None:
    def begun(id: str, slo: SLOClass, computed: int) -> Entry:
        return Entry(job(id, slo, prompt=500), 0, computed, True)

    streaming = running("streaming", generated=1)
    tool, much, little = begun("tool", TOOL, 0), begun("much", BATCH, 400), begun("little", BATCH, 10)
    chats = [waiting(f"c{i}", CHAT, 5.0) for i in range(2)]
    old = waiting("old", BATCH, -200.0)
    made = smg(snapshot(streaming, tool, much, little, old, *chats, places=4), 6.0)
    assert made.preempt == ("little", "much")
    assert sorted(["old", "c0", "c1"], key=list(made.order).index) == ["c0", "c1", "old"], (
        "a cleared slot is its preemptor's"
    )
    assert smg(snapshot(streaming, old, *chats), 6.0).preempt == ()


# -- QLM ----------------------------------------------------------------------------------------------------------


def test_qlm_serves_groups_by_their_deadlines_while_the_waiting_times_allow() -> None:
    facts = snapshot(*(waiting(f"t{i}", TOOL) for i in range(3)), waiting("c", CHAT), waiting("b"), places=4)
    made = qlm(facts, 0.0)
    assert line(made) == "c t0 t1 t2 b"
    assert Reason.DEFERRED not in made.reasons.values()


def test_the_longest_group_is_put_off_where_it_would_make_others_late() -> None:
    big = SLOClass("big", Pattern.DEADLINE, Objectives(ttlt_s=9.0))
    crowd = [waiting(f"big{i}", big, output=100) for i in range(60)]
    small = [waiting(f"t{i}", TOOL, 2.0, output=20) for i in range(4)]
    made = qlm(snapshot(*crowd, *small, places=16), 2.0)
    assert set(made.order[:4]) == {"t0", "t1", "t2", "t3"}
    assert {made.reasons[f"big{i}"] for i in range(60)} == {Reason.DEFERRED}


def test_a_running_request_that_can_wait_is_evicted_for_one_that_would_be_late() -> None:
    chat = waiting("chat", CHAT, 9.5)
    assert qlm(snapshot(running("b", output=2000), chat), 10.0).preempt == ("b",)
    assert qlm(snapshot(running("b", output=2000), chat), 99.0).preempt == (), "a late one gains nothing by it"
    assert qlm(snapshot(running("b", output=3), chat), 10.0).preempt == (), "a place falls free in time"
    assert qlm(snapshot(running("t", TOOL, 3.0, output=30), chat), 10.0).preempt == (), "its victim could not wait"
