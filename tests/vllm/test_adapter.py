from dataclasses import replace
from math import isnan
from types import SimpleNamespace

import pytest

from support.fake_request import FakeRequest
from support.policies import plan
from support.pools import write_pool
from tempo_core.snapshot import Settings
from tempo_core.steptime import StepTime
from tempo_vllm.adapter import Adapter
from tempo_vllm.pools import PoolFile


@pytest.fixture
def adapter(tmp_path):
    """With a policy that keeps the snapshots it saw in `seen`, and a clock to set in `at`."""
    made = Adapter(PoolFile(write_pool(tmp_path)))
    made.seen, made.at = [], [1000.0]
    made.wall = made.monotonic = lambda: made.at[0]

    def policy(snapshot, now_s):
        made.seen.append(snapshot)
        return plan(snapshot)

    made.policies = {"tempo": policy}
    return made


def entry(adapter, running=(), waiting=()):
    """The one entry that the policy sees."""
    adapter.plan(running, waiting, 4, 512)
    (only,) = adapter.seen[-1].entries
    return only


def test_the_policy_sees_the_engines_limits_the_pools_settings_and_the_step_time(adapter):
    adapter.arrived(FakeRequest())
    adapter.plan([], [FakeRequest()], 4, 512)
    (snapshot,) = adapter.seen
    assert (snapshot.max_running, snapshot.max_step_tokens) == (4, 512)
    assert snapshot.settings is adapter.pools.pool.settings
    assert snapshot.step_time == StepTime()


def test_a_request_waits_from_its_arrival_runs_and_waits_again_from_when_it_lost_its_place(adapter):
    request = FakeRequest()
    adapter.arrived(request)
    adapter.at[0] += 5.0
    waiting = entry(adapter, waiting=[request])
    assert (waiting.running, waiting.waiting_since_s, waiting.generated) == (False, 1000.0, 0)

    request.num_computed_tokens, request.num_output_tokens = 60, 10
    running = entry(adapter, running=[request])
    assert (running.running, running.generated, running.computed) == (True, 10, 60)
    assert isnan(running.waiting_since_s)

    adapter.at[0] += 5.0
    request.num_computed_tokens = 0
    again = entry(adapter, waiting=[request])
    assert (again.running, again.waiting_since_s, again.generated, again.computed) == (False, 1010.0, 10, 0)


def test_a_request_that_ran_and_lost_its_place_between_two_passes_is_seen_as_it_is(adapter):
    request = FakeRequest()
    adapter.arrived(request)
    adapter.admitted(["r"])
    request.num_output_tokens = 4
    adapter.tokens_came({"r": request})
    adapter.evicted(["r"])
    seen = entry(adapter, waiting=[request])
    assert (seen.generated, seen.first_token_s) == (4, 1000.0)


def test_the_policy_sees_what_the_cache_would_save_a_waiting_request_at_each_pass(adapter):
    request, found = FakeRequest(), [16]
    adapter.cached = lambda of: found[0] if of is request else 0
    adapter.arrived(request)
    assert entry(adapter, waiting=[request]).computed == 16
    adapter.at[0] += 5.0
    found[0] = 48
    again = entry(adapter, waiting=[request])
    assert (again.computed, again.waiting_since_s) == (48, 1000.0)


def test_a_pass_looks_up_some_of_the_waiting_requests_and_the_next_passes_the_others(adapter):
    requests = [FakeRequest(request_id=str(i), num_prompt_tokens=9000) for i in range(6)]
    for request in requests:
        adapter.arrived(request)
    looked_up = []
    adapter.cached = lambda of: looked_up.append(of.request_id) or 5000
    for _ in range(3):
        adapter.plan([], requests, 4, 512)
    assert looked_up == list("012345")
    adapter.plan([], requests[:1], 4, 512)
    assert looked_up[6:] == ["0", "1"]


def test_the_first_token_is_stamped_when_it_comes_and_never_again(adapter):
    request = FakeRequest()
    adapter.arrived(request)
    adapter.admitted(["r"])
    adapter.tokens_came({"r": request})
    assert isnan(entry(adapter, running=[request]).first_token_s)
    adapter.at[0], request.num_output_tokens = 1003.0, 1
    adapter.tokens_came({"r": request})
    adapter.at[0] = 1009.0
    adapter.admitted(["r"])
    adapter.tokens_came({"r": request})
    assert entry(adapter, running=[request]).first_token_s == 1003.0


def test_what_has_ended_is_forgotten_whole(adapter):
    request = FakeRequest(num_output_tokens=1)
    adapter.arrived(request)
    adapter.admitted(["r"])
    adapter.tokens_came({"r": request})
    adapter.finished(["r", "never heard of"])
    assert len(adapter) == 0
    assert not any((adapter._resting, adapter._first_token_s, adapter._no_token_yet, adapter._requests))


def test_a_request_that_ended_before_its_first_token_is_not_stamped_later(adapter):
    adapter.arrived(FakeRequest())
    adapter.admitted(["r"])
    adapter.finished(["r"])
    adapter.admitted(["r"])
    adapter.tokens_came({})
    assert not any((adapter._first_token_s, adapter._no_token_yet))


@pytest.mark.parametrize("place", ["running", "waiting"])
def test_a_request_that_was_never_announced_is_still_planned_for(adapter, place):
    seen = entry(adapter, **{place: [FakeRequest()]})
    assert (seen.job.id, seen.running) == ("r", place == "running")


def test_malformed_metadata_is_counted_each_time_and_warned_of_once_a_minute(adapter, heard):
    for index in range(10):
        request = FakeRequest(request_id=str(index))
        request.sampling_params.extra_args = {"tempo_tbt_s": "fast"}
        adapter.arrived(request)
    assert adapter.status()["malformed"] == 10
    assert len(heard.records) == 1
    adapter.at[0] += 61.0
    adapter.arrived(FakeRequest(request_id="x", sampling_params=request.sampling_params))
    assert heard.messages[-1].endswith("so far: tbt_s 11")


def test_the_status_counts_passes_reasons_and_preemptions(adapter):
    adapter.arrived(FakeRequest())
    for _ in range(3):
        adapter.plan([], [FakeRequest()], 4, 512)
    adapter.preempted()
    status = adapter.status()
    assert (status["passes"], status["preemptions"]) == (3, 1)
    assert status["reasons"] == {
        "arrival": 3, "on_time": 0, "deferred": 0, "late": 0, "no_target": 0, "aged": 0, "ranked": 0,
    }  # fmt: skip
    assert set(status["step_time"]) == {"base_s", "per_sequence_s", "per_prefill_token_s", "per_context_token_s"}


def test_steps_between_passes_do_not_ask_the_policy(adapter):
    assert adapter.pass_due()
    adapter.at[0] += 1.0
    adapter.plan([FakeRequest()], [], 4, 512)
    adapter.plan([FakeRequest()], [], 4, 512)
    assert [adapter.pass_due() for _ in range(20)] == [False] * 19 + [True]


def fair(adapter, fairness=0.5):
    adapter.pools.pool = replace(adapter.pools.pool, settings=Settings(fairness=fairness))


def of_tenant(name, **facts):
    """A request of the tenant that its name begins with."""
    return FakeRequest(name, sampling_params=SimpleNamespace(extra_args={"tempo_tenant": name[0]}), **facts)


def counters(adapter, running=(), waiting=()):
    adapter.plan(running, waiting, 4, 512)
    return adapter.seen[-1].served


def test_fairness_counts_what_each_tenant_was_computed_live_or_ended(adapter):
    fair(adapter)
    live = of_tenant("a1", num_computed_tokens=53, num_output_tokens=4)
    done = of_tenant("b1", num_computed_tokens=60, num_output_tokens=10)
    aborted = of_tenant("b2")
    for request in (live, done, aborted):
        adapter.arrived(request)
    assert counters(adapter, running=[live, done], waiting=[aborted]) == {"a": 58.0, "b": 70.0}
    done.num_output_tokens = 11
    adapter.finished(["b1", "b2", "never heard of"])
    assert counters(adapter, running=[live], waiting=[of_tenant("b3")]) == {"a": 58.0, "b": 72.0}


def test_without_fairness_tenants_are_not_counted(adapter):
    fair(adapter, 0.0)
    live = [of_tenant(name, num_computed_tokens=50) for name in ("a1", "b1")]
    assert counters(adapter, running=live) == {}
    adapter.finished(["b1"])
    fair(adapter)
    assert counters(adapter, running=[live[0], of_tenant("b2")]) == {"a": 50.0, "b": 50.0}
