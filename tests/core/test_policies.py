"""What the policies promise: of every plan, and of a whole run of a batching engine in virtual time."""

import random
from dataclasses import replace
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.batch import serve
from tempo_core.density import outlook
from tempo_core.policies import POLICIES
from tempo_core.slo import GainRule, Objectives, Pattern, SLOClass
from tempo_core.snapshot import Entry, Job, Plan, Reason, Settings, Snapshot
from tempo_core.steptime import StepTime

CHAT = SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=1.0, tbt_s=0.1))
TOOL = SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=8.0))
AGENT = SLOClass("agent", Pattern.COLLECTIVE, Objectives(per_stage_s=8.0))
BATCH = SLOClass("batch", Pattern.BEST_EFFORT)
HARD = SLOClass("hard", Pattern.DEADLINE, Objectives(ttlt_s=8.0), GainRule(decay=inf))
LENGTHS = (10.0, 20.0, 40.0, 60.0, 80.0, 90.0, 100.0)
STEP = StepTime(0.02, 0.001, 0.0005, 0.0)
tempo = POLICIES["tempo"]


def job(id: str, slo: SLOClass, arrival_s: float = 0.0, prompt: int = 50, scale: float = 1.0, **facts) -> Job:
    deadline = arrival_s + slo.deadline_s() if "deadline_s" not in facts else facts.pop("deadline_s")
    return Job(
        id,
        slo,
        arrival_s=arrival_s,
        prompt_tokens=prompt,
        max_tokens=int(200 * scale),
        lengths=tuple(scale * length for length in LENGTHS),
        deadline_s=deadline,
        **facts,
    )


def plan(entries: list[Entry], now: float, places: int = 4, **tuning) -> Plan:
    return tempo(Snapshot(entries, places, 512, STEP, Settings(**tuning)), now)


def running(a_job: Job, generated: int = 10, **facts) -> Entry:
    return Entry(a_job, generated, a_job.prompt_tokens + generated - 1, True, a_job.arrival_s + 0.5, **facts)


@st.composite
def entry(draw: st.DrawFn, index: int = 0, *, tools: bool = True) -> Entry:
    slo = draw(st.sampled_from([CHAT, TOOL, AGENT, BATCH, HARD]))
    a_job = job(
        f"r{index}-{draw(st.integers(0, 10**9))}",
        slo,
        arrival_s=draw(st.floats(0, 100)),
        prompt=draw(st.integers(1, 4000)),
        program=draw(st.sampled_from([None, "p", "q"])) if slo is AGENT else None,
        banked_gain=draw(st.sampled_from([0.0, 500.0])),
        tenant=draw(st.sampled_from("abc")),
        tools=tools and slo is AGENT and draw(st.booleans()),
    )
    generated = draw(st.integers(0, 199))
    runs = draw(st.booleans())
    computed = draw(st.integers(0, a_job.prompt_tokens + generated)) if runs else 0
    return Entry(a_job, generated, computed, runs, a_job.arrival_s + 1.0 if generated else nan)


entries = st.lists(entry(), max_size=24, unique_by=lambda e: e.job.id)
served = st.fixed_dictionaries({}, optional=dict.fromkeys("abc", st.integers(0, 1_000_000)))
shares = st.sampled_from([0.0, 0.3, 1.0])


@given(entries, st.floats(100, 200), st.integers(1, 16), st.sampled_from(sorted(POLICIES)), served, shares)
def test_every_plan_orders_each_request_once_and_preempts_only_what_runs(
    entries: list[Entry], now: float, places: int, policy: str, served: dict[str, float], fairness: float
) -> None:
    snapshot = Snapshot(entries, places, 512, STEP, Settings(fairness=fairness), served=served)
    made = POLICIES[policy](snapshot, now)
    assert sorted(made.order) == sorted(e.job.id for e in entries)
    assert set(made.preempt) <= {e.job.id for e in entries if e.running}
    assert len(set(made.preempt)) == len(made.preempt)
    assert made.reasons.keys() == {e.job.id for e in entries}
    assert 1 <= made.max_running <= places
    assert 1 <= made.token_budget <= 512
    assert made == POLICIES[policy](snapshot, now), "the same facts give the same plan"


def load(seed: int, count: int, gap_s: float, slos=(CHAT, TOOL, AGENT, BATCH)) -> list[tuple[Job, int]]:
    rng = random.Random(seed)
    at, jobs = 0.0, []
    for index in range(count):
        at += rng.expovariate(1.0 / gap_s)
        slo = rng.choice(slos)
        program = {"program": f"p{index // 4}"} if slo is AGENT else {}
        jobs.append((job(f"r{index:03d}", slo, at, prompt=rng.randint(5, 300), **program), rng.randint(1, 100)))
    return jobs


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("gap_s", [0.02, 0.3])
def test_every_request_is_served_to_its_end_with_its_own_tokens(policy: str, gap_s: float) -> None:
    arrivals = load(3, 120, gap_s)
    result = serve(POLICIES[policy], arrivals)
    assert {name: outcome.output_tokens for name, outcome in result.outcomes.items()} == {
        a_job.id: output for a_job, output in arrivals
    }


@given(entries, st.floats(100, 200), st.integers(1, 16), served)
def test_without_fairness_it_does_not_matter_what_tenants_were_served(
    entries: list[Entry], now: float, places: int, served: dict[str, float]
) -> None:
    snapshot = Snapshot(entries, places, 512, STEP)
    assert tempo(replace(snapshot, served=served), now) == tempo(snapshot, now)


@given(entries, st.floats(100, 200), st.integers(1, 16), st.floats(0, 1e9), shares)
def test_fairness_changes_nothing_among_the_equally_served(
    entries: list[Entry], now: float, places: int, each: float, fairness: float
) -> None:
    snapshot = Snapshot(entries, places, 512, STEP)
    fair = replace(snapshot, settings=Settings(fairness=fairness), served=dict.fromkeys("abc", each))
    assert tempo(fair, now) == tempo(snapshot, now)


@given(entries, st.floats(100, 200), st.integers(1, 16), served)
def test_of_a_rank_that_is_all_fairness_the_order_is_by_served_tokens_behind_the_aged(
    entries: list[Entry], now: float, places: int, served: dict[str, float]
) -> None:
    made = tempo(Snapshot(entries, places, 512, STEP, Settings(fairness=1.0), served=served), now)
    tenants = {e.job.id: e.job.tenant for e in entries if not e.running and made.reasons[e.job.id] is not Reason.AGED}
    counters = [served.get(tenants[name], 0.0) for name in made.order if name in tenants]
    assert counters == sorted(counters)


WORTHLESS = SLOClass("worthless", Pattern.BEST_EFFORT, gain=GainRule(weight=1e-6))


@settings(max_examples=8)
@given(st.integers(0, 10**6), shares)
def test_nobody_starves_however_little_it_is_worth_and_however_much_its_tenant_was_served(
    seed: int, fairness: float
) -> None:
    """Far beyond capacity, a worthless request starts after its patience, behind those that aged before it, one
    service time each.
    """
    arrivals = [*load(seed, 100, 0.06, (CHAT, TOOL)), (job("worthless", WORTHLESS, 0.2, tenant="most"), 20)]

    def policy(snapshot: Snapshot, now_s: float) -> Plan:
        return tempo(replace(snapshot, served={"": 0.0, "most": 1e9}), now_s)

    result = serve(policy, arrivals, settings=Settings(patience_s=2.0, fairness=fairness))
    longest_service_s = 100 * STEP.seconds(8, 128) + 1.0
    ahead = sum(1 for a_job, _ in arrivals if a_job.arrival_s < 0.2)
    assert result.started_s["worthless"] - 0.2 <= 2.0 + (ahead + 1) * longest_service_s


def test_without_the_aged_lane_it_would_starve() -> None:
    arrivals = [*load(1, 200, 0.06, (CHAT, TOOL)), (job("worthless", WORTHLESS, 0.2), 20)]
    starts = [serve(tempo, arrivals, settings=Settings(patience_s=p)).started_s["worthless"] for p in (2.0, 1e9)]
    assert starts[0] < 0.5 * starts[1]


def test_a_late_urgent_stream_goes_before_long_requests_that_wait() -> None:
    waiting = [Entry(job(f"batch{i}", BATCH)) for i in range(20)] + [
        Entry(job(f"tool{i}", TOOL, 1.0)) for i in range(5)
    ]
    made = plan([*waiting, Entry(job("chat", CHAT, 2.0))], now=2.1)
    assert made.order[0] == "chat"
    assert made.reasons["chat"] is Reason.ON_TIME


def test_a_full_batch_of_best_effort_makes_room_for_a_stream() -> None:
    full = [running(job(f"batch{i}", BATCH, scale=10.0)) for i in range(4)]
    made = plan([*full, Entry(job("chat", CHAT, 9.5))], now=9.6)
    assert len(made.preempt) == 1
    assert made.preempt[0].startswith("batch")


def test_a_batch_about_to_end_is_not_preempted_for_one_who_can_wait() -> None:
    ending = [running(job(f"batch{i}", BATCH), generated=199) for i in range(4)]
    made = plan([*ending, Entry(job("chat", CHAT, 9.5))], now=9.6)
    assert made.preempt == []


def test_recompute_is_charged_before_a_victim_is_taken() -> None:
    """The same newcomer, twice: it displaces a victim with little cached, not one whose cache is dear."""

    def made(cached: int) -> Plan:
        old = job("old", BATCH, arrival_s=0.0, prompt=cached, scale=10.0)
        return plan([running(old), Entry(job("chat", CHAT, 19.3, prompt=5))], now=20.0, places=1)

    assert made(cached=20).preempt == ["old"]
    assert made(cached=20_000).preempt == []


def test_what_is_about_to_be_late_goes_before_what_is_late_already() -> None:
    late, tight = Entry(job("late", TOOL, 0.0)), Entry(job("tight", TOOL, 13.5))
    made = plan([late, tight], now=20.0)
    assert list(made.order) == ["tight", "late"]
    assert made.reasons == {"late": Reason.LATE, "tight": Reason.ON_TIME}


def test_what_can_wait_lets_go_first_what_is_late_and_losing_its_worth() -> None:
    late, patient = Entry(job("late", TOOL, 0.0)), Entry(job("patient", TOOL, 0.0, deadline_s=3600.0))
    assert list(plan([patient, late], now=20.0).order) == ["late", "patient"]


def test_where_nothing_is_lost_by_waiting_the_tightest_slack_goes_first() -> None:
    loose, tight = Entry(job("loose", TOOL, 0.0, deadline_s=100.0)), Entry(job("tight", TOOL, 0.0, deadline_s=12.0))
    assert list(plan([loose, tight], now=1.0).order) == ["tight", "loose"]


def test_when_not_everything_fits_the_heavier_class_goes_first() -> None:
    heavy = SLOClass("heavy", Pattern.DEADLINE, TOOL.objectives, GainRule(weight=5.0))
    crowd = [Entry(job(f"{slo.name}{i}", slo, 0.0, prompt=2000)) for i in range(10) for slo in (TOOL, heavy)]
    made = plan(crowd, now=0.1, places=4)
    assert all(name.startswith("heavy") for name in made.order[:10])
    assert made.reasons[made.order[0]] is Reason.ON_TIME
    assert made.reasons[made.order[-1]] is Reason.DEFERRED


def test_of_equal_gain_a_second_the_promise_that_is_quicker_to_keep_goes_first() -> None:
    """Both lose their worth by waiting; one engine keeps more promises by the short ones."""
    long, short = (Entry(job(name, TOOL, 0.0, prompt=1, scale=s)) for name, s in (("long", 4.0), ("short", 1.0)))
    crowd = [Entry(job(f"crowd{i}", TOOL, 0.0, prompt=1, scale=4.0)) for i in range(20)]
    assert plan([long, short, *crowd], now=0.1).order[0] == "short"


def test_a_promise_counts_by_its_class_weight() -> None:
    heavy = SLOClass("heavy", Pattern.DEADLINE, TOOL.objectives, GainRule(weight=8.0))
    crowd = [Entry(job(f"t{i}", TOOL, 0.0)) for i in range(30)]
    assert plan([*crowd, Entry(job("heavy", heavy, 0.0, scale=4.0))], now=0.1).order[0] == "heavy"


@given(entries, st.floats(0, 200), st.integers(1, 8))
def test_what_runs_and_can_keep_its_promise_keeps_its_place(entries: list[Entry], now: float, places: int) -> None:
    made = plan(entries, now, places)
    lost = ~outlook(Snapshot(entries, places, 512, STEP), now).attainable if entries else ()
    assert set(made.preempt) <= {e.job.id for e, gone in zip(entries, lost, strict=True) if gone}


@given(st.lists(entry(tools=False), max_size=24, unique_by=lambda e: e.job.id), st.floats(0, 200), st.integers(1, 8))
def test_without_tools_only_best_effort_goes(entries: list[Entry], now: float, places: int) -> None:
    promised = {e.job.id for e in entries if e.job.slo is not BATCH}
    assert promised.isdisjoint(plan(entries, now, places).preempt)


def test_what_is_late_makes_room_for_a_program_with_tools_that_can_be_on_time() -> None:
    """The same newcomer, about to be late: with tools or not, beside what is late or in time, its cache dear or not."""

    def made(*, tools: bool = True, arrival_s: float = 0.0, cached: int = 20) -> list[str]:
        old = running(job("old", TOOL, arrival_s, prompt=cached))
        program = job("program", AGENT, 14.2, program="p", tools=tools)
        return list(plan([old, Entry(program)], now=20.0, places=1).preempt)

    assert made() == ["old"]
    assert made(tools=False) == made(arrival_s=19.0) == made(cached=20_000) == []


def test_a_programs_members_share_what_its_finished_calls_have_at_stake() -> None:
    crowd = [Entry(job(f"t{i}", TOOL, 0.0, prompt=2000)) for i in range(30)]
    member = {"program": "p", "banked_gain": 50_000.0}
    made = plan([*crowd, Entry(job("call", AGENT, 0.0, prompt=2000, **member))], now=0.1)
    assert made.order[0] == "call"


def batch_beside(generated: int) -> int:
    """Prefill tokens of a step with four streams whose first token came half a second ago, due one each 0.1 s."""
    streams = [running(job(f"chat{i}", CHAT, 9.0), generated) for i in range(4)]
    made = plan([*streams, Entry(job("long", BATCH, 9.0, prompt=4000))], now=10.0, places=8)
    return made.token_budget - 4


def test_a_step_ends_before_the_next_token_of_a_stream_on_pace_is_due() -> None:
    prefill = batch_beside(generated=5)
    assert Settings().min_prefill_tokens < prefill
    assert STEP.seconds(4, prefill) <= CHAT.objectives.tbt_s


def test_streams_ahead_of_their_pace_leave_room_and_those_behind_get_short_steps() -> None:
    assert batch_beside(generated=5) < batch_beside(generated=6) < batch_beside(generated=8)
    assert batch_beside(generated=4) == Settings().min_prefill_tokens


def test_no_more_places_than_the_pace_allows() -> None:
    slow = StepTime(0.02, 0.012, 0.0005, 0.0)
    streams = [running(job(f"chat{i}", CHAT, 9.0), 5) for i in range(2)]
    made = tempo(Snapshot(streams, 64, 512, slow), 10.0)
    assert slow.seconds(made.max_running) <= CHAT.objectives.tbt_s < slow.seconds(made.max_running + 3)


def test_without_streams_a_step_takes_what_the_engine_allows() -> None:
    made = plan([Entry(job("long", BATCH, 9.0, prompt=4000))], now=10.0)
    assert made.token_budget == 512


def test_what_decodes_is_served_before_what_prefills() -> None:
    decoding = running(job("decoding", BATCH, 0.0))
    prefilling = Entry(job("prefilling", CHAT, 9.9, prompt=400), 0, 100, running=True)
    made = plan([prefilling, decoding], now=10.0)
    assert list(made.order) == ["decoding", "prefilling"]


def test_an_aged_request_leads_whatever_it_is_worth() -> None:
    crowd = [Entry(job(f"chat{i}", CHAT, 89.9)) for i in range(10)]
    made = plan([*crowd, Entry(job("old", BATCH, 0.0))], now=90.0)
    assert made.order[0] == "old"
    assert made.reasons["old"] is Reason.AGED


def test_the_aged_lane_is_no_wider_than_its_share() -> None:
    old = [Entry(job(f"old{i}", BATCH, float(i))) for i in range(20)]
    for places, wide in ((16, 1), (128, 1), (256, 2)):
        made = plan([*old, Entry(job("chat", CHAT, 89.9))], now=90.0, places=places)
        assert list(made.order).index("chat") == wide


@pytest.mark.parametrize(("now", "open_"), [(90.0, True), (97.0, True), (98.0, False), (119.0, False), (120.0, True)])
def test_a_lane_of_a_quarter_of_a_place_is_open_for_a_quarter_of_the_time(now: float, open_: bool) -> None:
    made = plan([Entry(job("old", BATCH, 0.0)), Entry(job("chat", CHAT, now - 0.1))], now=now, places=32)
    assert (made.reasons["old"] is Reason.AGED) == open_


def test_who_runs_in_the_aged_lane_stays_when_it_closes() -> None:
    old = Entry(job("old", BATCH, 0.0), 5, 105, running=True, first_token_s=90.0)
    assert plan([old, Entry(job("chat", CHAT, 99.9))], now=100.0, places=32).reasons["old"] is Reason.AGED


def test_where_all_can_be_met_least_slack_goes_first_however_dear() -> None:
    entries = [
        Entry(job("dear", TOOL, 0.0, prompt=400, scale=1.0, deadline_s=20.0)),
        Entry(job("cheap", TOOL, 0.0, prompt=10, scale=0.1, deadline_s=60.0)),
        Entry(job("middling", TOOL, 0.0, prompt=50, scale=0.5, deadline_s=40.0)),
    ]
    assert list(plan(entries, now=0.1, places=1).order) == ["dear", "middling", "cheap"]


@pytest.mark.parametrize("decay", [0.5, 1.0, inf])
def test_a_deadline_before_its_programs_arrival_is_worth_nothing_and_breaks_nothing(decay: float) -> None:
    slo = replace(AGENT, gain=replace(AGENT.gain, decay=decay))
    lost = Job("lost", slo, arrival_s=10.0, prompt_tokens=9, max_tokens=9, deadline_s=3.0, program="p")
    snapshot = Snapshot([Entry(lost), Entry(job("chat", CHAT, 10.0))], 4, 512, STEP)
    assert outlook(snapshot, 11.0).gain[0] == 0.0
    assert list(tempo(snapshot, 11.0).order) == ["chat", "lost"]


def test_priority_follows_the_callers_numbers_and_fcfs_does_not() -> None:
    entries = [Entry(job("first", BATCH, 0.0, priority=5)), Entry(job("second", BATCH, 1.0, priority=-5))]
    snapshot = Snapshot(entries, 4, 512)
    assert list(POLICIES["priority"](snapshot, 2.0).order) == ["second", "first"]
    assert list(POLICIES["fcfs"](snapshot, 2.0).order) == ["first", "second"]


def test_an_idle_engine_gets_an_empty_plan() -> None:
    assert list(tempo(Snapshot([], 4, 512), 0.0).order) == []


def test_under_overload_tempo_earns_more_and_keeps_more_promises_than_arrival_order() -> None:
    for seed in (1, 2):
        arrivals = load(seed, 200, 0.09, (CHAT, TOOL))
        figures = {}
        for policy in ("fcfs", "tempo"):
            outcomes = serve(POLICIES[policy], arrivals).outcomes.values()
            figures[policy] = (sum(o.gain for o in outcomes), sum(o.attained for o in outcomes))
        assert figures["tempo"][0] > 1.1 * figures["fcfs"][0]
        assert figures["tempo"][1] > 2 * figures["fcfs"][1]
