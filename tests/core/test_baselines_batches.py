"""What the papers of the policies that shape batches claim of them."""

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.baselines import BATCH, CHAT, STEP, TOOL, Watched, job, line, running, snapshot, waiting
from support.batch import serve
from tempo_core.policies import POLICIES
from tempo_core.policies.gmax import CUTOFF, window
from tempo_core.slo import GainRule, Objectives, Pattern, SLOClass
from tempo_core.snapshot import Entry, Job, Reason
from tempo_core.steptime import StepTime

sarathi, coloc, andes, gmax, scorpio = (POLICIES[name] for name in ("sarathi", "coloc", "andes", "gmax", "scorpio"))
TBT_S = CHAT.objectives.tbt_s


def chats_and(others: SLOClass, seed: int = 1, count: int = 24) -> list[tuple[Job, int]]:
    """Short chats among long prompts of another class, one every tenth of a second."""
    rng = random.Random(seed)
    arrivals = []
    for i in range(count):
        slo = CHAT if i % 2 else others
        prompt, output = (rng.randint(5, 40), 15) if slo is CHAT else (rng.randint(200, 500), 15)
        arrivals.append((job(f"{slo.name}{i}", slo, 0.1 * i, prompt=prompt, output=output), output))
    return arrivals


def longest_step_s(policy, arrivals, **machine) -> float:
    """Of the steps in which a stream decodes."""
    watched = Watched(policy)
    serve(watched, arrivals, budget=2048, **machine)
    return max(
        after - before
        for (before, facts), (after, _) in pairwise(watched.seen)
        if any(entry.running and entry.generated and entry.job.slo is CHAT for entry in facts.entries)
    )


# -- Sarathi-Serve ------------------------------------------------------------------------------------------------


def test_sarathi_bounds_every_step_by_the_time_between_tokens_where_arrival_order_stalls() -> None:
    arrivals = chats_and(TOOL)
    assert longest_step_s(sarathi, arrivals) <= TBT_S + 1e-9
    assert longest_step_s(POLICIES["fcfs"], arrivals) > 2 * TBT_S


def test_sarathi_fills_a_step_with_decodes_then_begun_prompts_then_new_ones_by_arrival() -> None:
    begun = Entry(job("begun", TOOL, 0.0, prompt=500), 0, 100, True)
    facts = snapshot(begun, running("old", CHAT, 1.0), running("young", CHAT, 2.0), waiting("new", TOOL), places=8)
    made = sarathi(facts, 3.0)
    assert line(made) == "old young begun new"
    assert STEP.seconds(2, made.token_budget - 2) <= TBT_S < STEP.seconds(2, made.token_budget)


def test_without_streams_a_step_takes_what_the_engine_allows() -> None:
    assert sarathi(snapshot(running("t", TOOL), waiting("b")), 1.0).token_budget == 512


def test_a_pace_that_cannot_be_kept_leaves_the_least_prefill() -> None:
    slow = StepTime(0.5, 0.0, 0.0, 0.0)
    assert sarathi(snapshot(running("c", CHAT), step=slow), 1.0).token_budget == 1 + 32


# -- HyGen --------------------------------------------------------------------------------------------------------


def online_alone_and_with_offline(policy) -> tuple[float, float]:
    """The worst TTFT of chats, alone and among best effort."""
    mixed = chats_and(BATCH)
    alone = [(a_job, output) for a_job, output in mixed if a_job.slo is CHAT]
    return tuple(
        max(o.ttft_s for o in serve(policy, jobs, places=4, budget=2048).outcomes.values() if o.slo_class == "chat")
        for jobs in (alone, mixed)
    )


def test_offline_costs_online_no_more_than_the_latency_budget() -> None:
    alone, mixed = online_alone_and_with_offline(coloc)
    assert mixed <= alone + 3 * TBT_S
    assert longest_step_s(coloc, chats_and(BATCH)) <= TBT_S + 1e-9
    assert online_alone_and_with_offline(POLICIES["fcfs"])[1] > alone + 6 * TBT_S


def test_offline_takes_the_places_and_the_time_that_online_leaves() -> None:
    facts = snapshot(running("c", CHAT), waiting("b1", prompt=400), waiting("b2", BATCH, 1.0, prompt=400), places=4)
    made = coloc(facts, 2.0)
    assert made.max_running == 4
    assert STEP.seconds(1, made.token_budget - 1) == pytest.approx(TBT_S, abs=0.001)


def test_where_a_step_has_no_room_for_another_decode_offline_waits() -> None:
    tight = StepTime(0.02, 0.03, 0.0005, 0.0)
    facts = snapshot(*(running(f"c{i}", CHAT) for i in range(2)), waiting("b"), places=8, step=tight)
    assert coloc(facts, 1.0).max_running == 2


def test_the_newest_offline_request_gives_its_place_to_an_online_one() -> None:
    facts = snapshot(running("b1", BATCH, 1.0), running("b2", BATCH, 2.0), waiting("t", TOOL, 3.0), places=2)
    assert coloc(facts, 3.0).preempt == ("b2",)
    online = snapshot(running("t1", TOOL, 1.0), running("t2", TOOL, 2.0), waiting("c", CHAT, 3.0), places=2)
    assert coloc(online, 3.0).preempt == ()


# -- Andes --------------------------------------------------------------------------------------------------------


def reader(id: str, arrival_s: float, generated: int, **facts) -> Entry:
    return running(id, CHAT, arrival_s, generated, **{"output": 200, **facts})


def test_who_has_text_to_read_gives_way_to_who_has_none() -> None:
    ahead, behind = reader("ahead", 0.0, 150), reader("behind", 0.0, 3)
    made = andes(snapshot(ahead, behind, waiting("new", CHAT, 4.5, output=200), places=2), 5.0)
    assert made.preempt == ("ahead",)
    assert made.max_running == 2


def test_nobody_is_preempted_twice() -> None:
    entries = reader("ahead", 0.0, 150), waiting("new", CHAT, 4.5, output=200)
    assert andes(snapshot(*entries), 5.0).preempt == ("ahead",)
    assert andes(snapshot(*entries, preempted={"ahead": 1}), 5.0).preempt == ()


def test_where_all_fit_andes_is_arrival_order() -> None:
    facts = snapshot(reader("ahead", 0.0, 150), waiting("b"), waiting("c", CHAT, 4.5), places=4)
    assert line(andes(facts, 5.0)) == "ahead b c"
    assert andes(facts, 5.0).preempt == ()


def test_what_nobody_reads_goes_last() -> None:
    facts = snapshot(waiting("b"), waiting("t", TOOL, 1.0), waiting("c", CHAT, 1.0), places=2)
    assert andes(facts, 2.0).order[-1] == "b"


def test_where_the_cache_is_short_short_contexts_go_first() -> None:
    crowd = [waiting("long", CHAT, 0.0, prompt=900, output=50)]
    crowd += [waiting(f"s{i}", CHAT, 0.5, prompt=100, output=50) for i in range(8)]
    assert andes(snapshot(*crowd, places=8, cache_tokens=900), 1.0).order[-1] == "long"


def test_a_surge_of_readers_has_more_of_what_it_reads_than_by_arrival() -> None:
    arrivals = [(job(f"{i:02d}", CHAT, 0.1 * i, output=60, prompt=50), 60) for i in range(40)]
    gain, late = {}, {}
    for name in ("fcfs", "andes"):
        watched = Watched(POLICIES[name])
        result = serve(watched, arrivals, places=4)
        gain[name] = sum(o.gain for o in result.outcomes.values())
        late[name] = sum(o.ttft_s > CHAT.objectives.ttft_s for o in result.outcomes.values())
        assert max(watched.preempted.values(), default=0) <= 1
    assert gain["andes"] > 1.2 * gain["fcfs"]
    assert late["andes"] < 0.5 * late["fcfs"]


# -- GMAX ---------------------------------------------------------------------------------------------------------

scores = st.lists(st.tuples(st.floats(0.0, 10.0), st.integers(1, 50)), min_size=1, max_size=12)


@given(scores, st.integers(1, 12))
def test_the_window_respects_the_cutoff_and_no_run_of_like_prompts_is_worth_more(pairs, places: int) -> None:
    score, prompts = np.array([s for s, _ in pairs]), np.array([p for _, p in pairs])
    best = window(score, prompts, places)
    last = sorted(score)[-min(places, len(score))]
    allowed = [i for i in range(len(score)) if score[i] >= CUTOFF * last or len(score) <= places]
    assert len(best) == min(places, len(allowed))
    assert set(best.tolist()) <= set(allowed)
    by_prompt = sorted(allowed, key=lambda i: (prompts[i], -score[i]))
    runs = [by_prompt[i : i + len(best)] for i in range(len(by_prompt) - len(best) + 1)]
    assert score[best].sum() == pytest.approx(max(score[run].sum() for run in runs))


def test_of_about_equal_priorities_the_batch_with_alike_prompts_is_chosen() -> None:
    score, prompts = np.array([1.0, 1.0, 0.99, 0.97, 0.5]), np.array([10, 900, 12, 11, 10])
    assert sorted(window(score, prompts, 3).tolist()) == [0, 2, 3]


def test_waiting_lifts_a_priority_a_little_each_frame() -> None:
    young, old = waiting("young", since_s=99.0, output=20), waiting("old", since_s=0.0, output=40)
    assert line(gmax(snapshot(young, old, places=2), 99.0)) == "old young"
    just = old._replace(waiting_since_s=98.0)
    assert line(gmax(snapshot(young, just, places=2), 99.0)) == "young old"


def test_gmax_preempts_only_where_the_gain_is_more_than_the_stall_loses() -> None:
    dear = SLOClass("dear", Pattern.DEADLINE, Objectives(ttlt_s=60.0), GainRule(weight=4.0))

    def preempted(cached: int) -> tuple[str, ...]:
        victim = running("victim", output=300, prompt=cached, generated=10)
        return tuple(gmax(snapshot(victim, waiting("new", dear, 9.0, output=60)), 10.0).preempt)

    assert preempted(cached=10) == ("victim",)
    assert preempted(cached=20_000) == ()


def test_places_are_cut_to_those_that_keep_the_pace() -> None:
    slow = StepTime(0.02, 0.01, 0.0005, 0.0)
    streams = [running(f"c{i:02d}", CHAT) for i in range(12)]
    assert gmax(snapshot(*streams, places=16, step=slow), 1.0).max_running == 8
    assert gmax(snapshot(*streams[:8], places=16, step=slow), 1.0).max_running == 16


def test_under_overload_gmax_has_more_goodput_than_arrival_order() -> None:
    def hard(slo: SLOClass) -> SLOClass:
        return replace(slo, gain=GainRule(decay=float("inf")))

    rng, arrivals = random.Random(3), []
    for i in range(60):
        output = rng.randint(5, 60)
        slo = hard(rng.choice([CHAT, TOOL]))
        arrivals.append((job(f"{i:02d}", slo, 0.08 * i, prompt=rng.randint(5, 200), output=output), output))
    goodput = {
        name: sum(o.gain for o in serve(POLICIES[name], arrivals, places=4).outcomes.values())
        for name in ("fcfs", "gmax")
    }
    assert goodput["gmax"] > 1.3 * goodput["fcfs"]


# -- Scorpio ------------------------------------------------------------------------------------------------------

LOOSE = SLOClass("loose", Pattern.LATENCY, Objectives(ttft_s=10.0, tbt_s=0.4))


def test_least_deadline_goes_first_and_who_cannot_be_on_time_last() -> None:
    facts = snapshot(waiting("late", CHAT, 0.0), waiting("loose", LOOSE, 4.5), waiting("chat", CHAT, 4.5), waiting("b"))
    made = scorpio(facts, 5.0)
    assert line(made) == "chat loose b late"
    assert made.reasons["late"] is Reason.LATE


@pytest.mark.parametrize(("slo", "admitted"), [(CHAT, 4), (LOOSE, 5 + 8)])
def test_loose_paces_weigh_less_in_the_virtual_batch(slo: SLOClass, admitted: int) -> None:
    """A step of 0.1 s decodes four; one of four is tight, and the others weigh a quarter each."""
    step = StepTime(0.02, 0.02, 0.0005, 0.0)
    line = [waiting(f"w{i:02d}", slo, 0.0) for i in range(20)]
    made = scorpio(snapshot(running("r", CHAT), *line, places=32, step=step), 0.1)
    assert made.max_running == admitted


def test_where_a_step_cannot_decode_all_those_go_that_are_owed_most_tokens() -> None:
    step = StepTime(0.02, 0.04, 0.0005, 0.0)
    streams = [running("ahead", LOOSE, 0.0, 9), running("even", CHAT, 0.0, 10), running("owed", CHAT, 0.0, 5)]
    made = scorpio(snapshot(*streams, places=8, step=step), 1.0)
    assert line(made) == "owed even ahead"
    assert made.token_budget < 3 + 32, "the one ahead gets what prefill leaves"


def test_scorpio_keeps_the_pace_of_those_it_admits_under_overload() -> None:
    slow = StepTime(0.02, 0.015, 0.0005, 0.0)
    arrivals = [(job(f"{i:02d}", CHAT, 0.1 * i, output=20), 20) for i in range(24)]
    kept = {}
    for name in ("fcfs", "scorpio"):
        outcomes = serve(POLICIES[name], arrivals, places=16, budget=64, step=slow).outcomes.values()
        kept[name] = sum(o.attained for o in outcomes)
    assert kept["scorpio"] > kept["fcfs"]
