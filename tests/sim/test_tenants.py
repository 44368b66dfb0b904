"""What the simulated engine tells policies of its tenants, and that it is what fair ones need."""

from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.sim import CLASSES, FLAT, simulate, single
from tempo_core.policies import POLICIES
from tempo_core.snapshot import Settings

VTC = POLICIES["vtc"]
UNFAIR = Settings()


def owned(tenant, count, gap_s, *, start_s=0.0, **facts):
    """Requests of one tenant, evenly spaced."""
    units = (single(f"{tenant}{i}", start_s + i * gap_s, "batch", **facts) for i in range(count))
    return [replace(unit, tenant=tenant) for unit in units]


def counters(units, policy=VTC, tuning=UNFAIR):
    """(time, counters, who waits) at each pass."""
    seen = []

    def spying(snapshot, now_s):
        queued = {entry.job.tenant for entry in snapshot.entries if not entry.running}
        seen.append((now_s, dict(snapshot.served), queued))
        return policy(snapshot, now_s)

    return simulate(units, CLASSES, spying, FLAT, frame_steps=1, settings=tuning), seen


def widest_gap(units, policy=VTC, tuning=UNFAIR):
    """The most by which two backlogged tenants' counters ever differed."""
    _, seen = counters(units, policy, tuning)
    return max(abs(served["a"] - served["b"]) for _, served, queued in seen if queued == {"a", "b"})


def mean_ttlt_s(result, tenant):
    return fmean(unit.ttlt_s for unit in result.units if unit.id.startswith(tenant))


@pytest.mark.parametrize("policy", ["vtc", "tempo"])
@settings(max_examples=10)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 40), st.integers(1, 12)), max_size=30))
def test_backlogged_tenants_are_served_alike_within_the_papers_bound(policy, more):
    units = owned("a", 12, 0.0, prompt=8, output=10) + owned("b", 12, 0.0, prompt=20, output=3)
    for i, (tenant, prompt, output) in enumerate(more):
        units.append(replace(single(f"{i}", 0.01 * i, "batch", prompt=prompt, output=output), tenant=tenant))
    # Theorem 4.4: twice the larger of the longest input and what the running batch holds, by their weights.
    assert widest_gap(units, POLICIES[policy], Settings(fairness=1.0)) <= 2 * max(1.0 * 40, 2.0 * FLAT.kv_tokens)


def test_first_come_first_served_lets_a_heavy_tenant_have_more_than_that():
    units = owned("a", 60, 0.001, prompt=20, output=10) + owned("b", 20, 0.02, prompt=8, output=4)
    assert widest_gap(units, POLICIES["fcfs"]) > 2 * 2.0 * FLAT.kv_tokens > 3 * widest_gap(units)


def test_a_light_tenant_is_not_hurt_by_a_heavy_one_as_it_is_first_come_first_served():
    light = owned("b", 20, 0.4, prompt=8, output=10)
    heavy = owned("a", 200, 0.02, prompt=16, output=10)
    alone = mean_ttlt_s(simulate(light, CLASSES, VTC, FLAT), "b")
    fair = mean_ttlt_s(simulate(light + heavy, CLASSES, VTC, FLAT), "b")
    unfair = mean_ttlt_s(simulate(light + heavy, CLASSES, POLICIES["fcfs"], FLAT), "b")
    assert fair < alone + 0.3 < unfair
    assert unfair > 5 * fair


def test_a_tenant_is_charged_for_prompts_as_they_are_admitted_and_for_each_token_as_it_comes():
    _, seen = counters(owned("a", 1, 0.0, prompt=8, output=4) + owned("b", 1, 0.0, prompt=20, output=2))
    assert [served for _, served, _ in seen[:3]] == [
        {"a": 0.0, "b": 0.0},
        {"a": 10.0, "b": 22.0},
        {"a": 12.0},
    ]


def test_what_has_ended_stays_counted():
    twice = owned("a", 2, 9.0, prompt=8, output=4)
    _, seen = counters(twice + owned("b", 1, 0.0, start_s=5.0, prompt=20, output=2))
    assert next(served for now_s, served, _ in seen if now_s >= 9.0) == {"a": 16.0 + 24.0}, (
        "lifted to b, which joined at 16"
    )


def test_idle_time_is_not_banked():
    busy = owned("a", 60, 0.0, prompt=8, output=10)
    late = owned("b", 1, 0.0, start_s=1.0, prompt=8, output=10)
    _, seen = counters(busy + late)
    joined = next(served for _, served, queued in seen if "b" in queued)
    assert joined["b"] == pytest.approx(joined["a"], abs=2 * 4 * 2)


def test_after_an_empty_queue_a_tenant_joins_where_the_last_one_left():
    first = owned("a", 1, 0.0, prompt=30, output=10)
    second = owned("b", 1, 0.0, start_s=2.0, prompt=8, output=10)
    _, seen = counters(first + second)
    joined = next(served for _, served, queued in seen if queued == {"b"})
    assert joined == {"b": 50.0}


def test_one_tenant_is_not_counted():
    _, seen = counters(owned("a", 3, 0.0))
    assert all(served == {} for _, served, _ in seen)


def under_attack(fairness):
    """A light tenant beside twice what the engine can do of requests that earn most for the time that they take."""
    light = [replace(single(f"b{i}", 0.25 * i, "tool", prompt=20, output=6), tenant="b") for i in range(24)]
    flood = [replace(single(f"a{i}", 0.02 * i, "tool", prompt=28, output=1), tenant="a") for i in range(300)]
    return simulate(light + flood, CLASSES, POLICIES["tempo"], FLAT, settings=Settings(fairness=fairness))


def attainment(result, tenant):
    return fmean(unit.attained for unit in result.units if unit.id.startswith(tenant))


def test_fairness_protects_a_light_tenant_from_a_flood_of_what_earns_most():
    unfair, half, fair = (under_attack(fairness) for fairness in (0.0, 0.5, 1.0))
    assert attainment(unfair, "b") < 0.2
    assert attainment(half, "b") > 0.8
    assert attainment(fair, "b") == 1.0
    assert min(attainment(half, "a"), attainment(fair, "a")) > 0.9 * attainment(unfair, "a")


@pytest.mark.parametrize("fairness", [0.3, 0.7, 1.0])
def test_fairness_does_not_have_requests_take_places_from_each_other_in_turns(fairness):
    result = under_attack(fairness)
    assert result.preemptions < 0.1 * len(result.units)
