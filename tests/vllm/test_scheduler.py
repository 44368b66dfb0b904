"""Tempo inside vLLM's real scheduler and KV cache manager, with a fake worker and a virtual clock."""

import importlib.util
import json
import random
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.policies import ordered, plan
from support.pools import write_pool
from support.processes import wait_until

BOTH = pytest.mark.parametrize("kind", ["tempo", "tempo-async"])

by_name = ordered(lambda entry: entry.job.id)


def displacing(snapshot, _):
    """By name; whoever is better takes the place of whoever is worse."""
    order = sorted(snapshot.entries, key=lambda entry: entry.job.id)
    return plan(snapshot, order, preempt=[entry.job.id for entry in order[snapshot.max_running :] if entry.running])


@pytest.fixture
def pool(tmp_path):
    return write_pool(tmp_path)


def use(engine, policy):
    engine.scheduler.tempo.policies = {"tempo": policy}
    return engine


def whole(engine, outputs):
    """Every request has all of its tokens, each once and in order."""
    return engine.tokens == {name: list(range(count)) for name, count in outputs.items()}


@BOTH
def test_requests_are_served_in_the_plans_order(make, virtual, kind):
    engine = use(make(kind, places=1), by_name)
    engine.add(*(virtual.make_request(name) for name in "dbca"))
    engine.run()
    assert sorted(engine.done_s, key=engine.done_s.get) == ["a", "b", "c", "d"]


@BOTH
def test_a_preempted_request_gives_its_place_to_the_better_one_and_still_gets_all_its_tokens(make, virtual, kind):
    engine = use(make(kind, places=2), displacing)
    engine.add(virtual.make_request("c", output=60), virtual.make_request("d", output=60))
    engine.run_steps(10)
    engine.add(virtual.make_request("a"), virtual.make_request("b"))
    engine.run()
    assert set(engine.preempted) == {"c", "d"}
    assert len(engine.preempted) == 2, "a victim came straight back"
    assert max(engine.done_s["a"], engine.done_s["b"]) < min(engine.done_s["c"], engine.done_s["d"])
    assert whole(engine, {"a": 8, "b": 8, "c": 60, "d": 60})


@BOTH
def test_a_victim_does_not_take_its_place_back_though_the_plan_ranks_it_first(make, virtual, kind):
    def policy(snapshot, _):
        order = sorted(snapshot.entries, key=lambda entry: entry.job.id)
        return plan(snapshot, order, preempt=["a"] if len(order) > 1 and order[0].running else [])

    engine = use(make(kind, places=1), policy)
    engine.add(virtual.make_request("a", output=60))
    engine.run_steps(10)
    engine.add(virtual.make_request("b"))
    engine.step()
    assert engine.served[-1].keys() == {"b"}
    engine.run()
    assert whole(engine, {"a": 60, "b": 8})


@BOTH
def test_a_request_preempted_for_nobody_resumes_in_the_same_step_unharmed(make, virtual, kind):
    """The worker needs such a request's tokens anew: `FakeWorker` checks that it gets them."""
    engine = use(make(kind), lambda snapshot, _: plan(snapshot, preempt=["a"]))
    engine.add(virtual.make_request("a", output=200))
    while engine.scheduler.has_requests():
        engine.step()
    engine.run()
    assert engine.preempted.count("a") > 3
    assert whole(engine, {"a": 200})


@BOTH
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), blocks=st.sampled_from([24, 60, 2000]), places=st.sampled_from([1, 4, 16]))
def test_no_token_is_lost_or_doubled_whatever_the_policy_does(make, virtual, kind, seed, blocks, places):
    draw = random.Random(seed)

    def chaos(snapshot, _):
        entries = draw.sample(list(snapshot.entries), len(snapshot.entries))
        preempt = [entry.job.id for entry in entries if draw.random() < 0.1]  # waiting ones too
        return plan(
            snapshot,
            entries[draw.randrange(2) :],  # a policy that forgets one
            preempt=[*preempt, "nobody"],
            token_budget=draw.choice([-1, 3, 64, 10**9]),
            max_running=draw.choice([0, 2, 10**9]),
        )

    engine = use(make(kind, blocks=blocks, places=places, step_tokens=128), chaos)
    outputs = {f"r{index}": draw.randrange(1, 40) for index in range(20)}
    aborted = set()
    for name, output in outputs.items():
        engine.add(virtual.make_request(name, draw.randrange(1, 200), output, arrival_s=engine.now_s))
        for _ in range(draw.randrange(4)):
            engine.step()
        if draw.random() < 0.1:
            victim = draw.choice(sorted(outputs))
            engine.abort(victim)
            if victim in engine.scheduler.requests or victim not in engine.done_s:
                aborted.add(victim)
    engine.run()
    tempo = engine.scheduler.tempo
    assert not tempo.breaker.failures
    for name, count in outputs.items():
        got = engine.tokens.get(name, [])
        assert got == list(range(count)) or (name in aborted and got == list(range(len(got))))
    assert len(tempo) == 0


@BOTH
def test_nothing_of_a_request_is_kept_once_it_is_gone(make, virtual, kind):
    engine = make(kind, places=2)
    engine.add(*(virtual.make_request(f"r{index}", output=20) for index in range(6)))
    engine.run_steps(6)
    engine.abort("r0", "r5")  # one that runs, one that waits
    engine.run()
    engine.scheduler.schedule()  # vLLM tells of the last end with the step after it
    assert sorted(engine.done_s) == ["r1", "r2", "r3", "r4"]
    kept = {name: value for name, value in vars(engine.scheduler.tempo).items() if isinstance(value, dict | set)}
    assert not any("r1" in value or "r0" in value or "r5" in value for value in kept.values())


@BOTH
def test_a_failing_policy_costs_one_step_in_vllms_own_order(make, virtual, kind):
    calls = []

    def fails_once(snapshot, now_s):
        calls.append(now_s)
        if len(calls) == 2:
            raise RuntimeError("once")
        return by_name(snapshot, now_s)

    engine = use(make(kind, places=2), fails_once)
    engine.add(virtual.make_request("b"), virtual.make_request("a"))
    engine.run()
    engine.add(virtual.make_request("d", arrival_s=1.0), virtual.make_request("c", arrival_s=2.0))
    engine.run()
    tempo = engine.scheduler.tempo
    assert (tempo.breaker.failures, tempo.status()["state"]) == (1, "active")
    assert whole(engine, dict.fromkeys("abcd", 8))


@BOTH
@pytest.mark.parametrize("vllm_policy", ["fcfs", "priority"])
def test_a_policy_that_keeps_failing_leaves_the_engine_to_vllm(make, virtual, kind, vllm_policy, heard):
    def broken(snapshot, _):
        if engine.steps < 5:
            return plan(snapshot, snapshot.entries[::-1], token_budget=17, max_running=2)
        raise RuntimeError("boom")

    engine = make(kind, places=4, vllm_policy=vllm_policy)
    scheduler = engine.scheduler
    own_queue, own_policy = type(scheduler.waiting), scheduler.policy
    use(engine, broken)
    outputs = {f"r{index}": 30 for index in range(12)}
    engine.add(*(virtual.make_request(name, output=count) for name, count in outputs.items()))
    engine.run()
    status = scheduler.tempo.status()
    assert status["state"] == "fallback"
    assert status["reason"] == "failed in 3 steps in a row, last with RuntimeError: boom"
    assert status["failures"] == 3
    assert type(scheduler.waiting) is own_queue
    assert scheduler.policy is own_policy
    assert (scheduler.max_num_scheduled_tokens, scheduler.max_num_active_reqs) == (512, 4)
    assert whole(engine, outputs)
    assert sum("Traceback" in (record.exc_text or "") for record in heard.records) <= 1


def test_after_a_failure_the_queue_is_back_in_the_order_of_arrival(make, virtual):
    engine = use(make(places=1), by_name)
    engine.add(*(virtual.make_request(name, arrival_s=at) for name, at in (("d", 1.0), ("c", 2.0), ("b", 3.0))))
    engine.step()
    use(engine, None)
    engine.run()
    assert sorted(engine.done_s, key=engine.done_s.get) == ["b", "d", "c"]


@BOTH
def test_malformed_metadata_is_counted_and_the_request_served_as_the_default_class(make, virtual, kind, pool):
    engine = make(kind, pool=pool)
    bad = {"tempo_slo_class": 7, "tempo_deadline_s": "soon", "tempo_lengths": [3, 2, 1], "tempo_arrival_s": -1}
    engine.add(virtual.make_request("a", **bad), virtual.make_request("b", tempo_slo_class="unheard-of", other={}))
    tempo = engine.scheduler.tempo
    assert [tempo._jobs[name].slo.name for name in "ab"] == ["chat", "chat"]
    engine.run()
    assert tempo.status()["malformed"] == 5
    assert whole(engine, {"a": 8, "b": 8})


@pytest.mark.parametrize(("policy", "kind", "own"), [
    ("fcfs", "tempo", "vllm"), ("fcfs", "tempo-async", "vllm-async"), ("priority", "tempo", "vllm"),
])  # fmt: skip
def test_the_baselines_serve_as_vllm_does_step_by_step(make, virtual, tmp_path, policy, kind, own):
    def run(engine):
        for wave in range(3):
            for index in range(8):
                name, priority = f"r{wave}{index}", (index * 5 + wave) % 7
                engine.add(virtual.make_request(name, 90, 12, arrival_s=engine.now_s + index * 1e-6, priority=priority))
            engine.run_steps(6)
        engine.run()
        return engine.done_s, engine.first_s

    ours = make(kind, places=4, pool=write_pool(tmp_path, policy))
    assert run(ours) == run(make(own, places=4, vllm_policy=policy))


@BOTH
def test_tempo_lets_a_late_urgent_request_overtake_long_ones_that_fill_the_batch(make, virtual, kind, pool):
    def ttft_s(engine):
        for index in range(8):
            long = virtual.make_request(f"r{index}", 200, 1500, arrival_s=engine.now_s, tempo_slo_class="batch")
            engine.add(long)
        engine.run_steps(60)
        arrived_s = engine.now_s
        engine.add(virtual.make_request("urgent", 50, 10, arrival_s=arrived_s, tempo_slo_class="chat"))
        engine.run()
        assert len(engine.done_s) == 9
        return engine.first_s["urgent"] - arrived_s

    assert ttft_s(make(kind, places=4, pool=pool)) < 2.0
    assert ttft_s(make(kind.replace("tempo", "vllm"), places=4)) > 4.0


@BOTH
def test_where_memory_is_short_rather_than_places_a_better_request_is_still_let_in(make, virtual, kind):
    engine = use(make(kind, places=64, blocks=100), displacing)
    engine.add(virtual.make_request("b", 500, 200), virtual.make_request("c", 500, 200))
    engine.run_steps(10)
    arrived_s = engine.now_s
    engine.add(virtual.make_request("a", 640, 10))
    engine.run()
    assert engine.preempted == ["c"]
    assert engine.first_s["a"] - arrived_s < 0.2
    assert whole(engine, {"a": 10, "b": 200, "c": 200})


def test_a_long_prompt_takes_no_tokens_from_those_that_decode_even_when_it_ranks_first(make, virtual):
    engine = use(make(places=8, step_tokens=64), ordered(lambda entry: entry.job.id))
    engine.add(*(virtual.make_request(f"r{index}", 16, 100) for index in range(4)))
    engine.run_steps(8)
    engine.add(virtual.make_request("a", prompt=1000))
    engine.run_steps(10)
    assert all(step[f"r{index}"] == 1 for step in engine.served[-10:] for index in range(4))
    assert all(step["a"] == 60 for step in engine.served[-9:])


@BOTH
def test_a_better_request_need_not_wait_for_the_end_of_a_worse_ones_long_prompt(make, virtual, kind):
    engine = use(make(kind, places=8, step_tokens=64), by_name)
    engine.add(virtual.make_request("z", 1500), virtual.make_request("y", 1500))
    engine.run_steps(4)
    engine.add(virtual.make_request("a", 500))
    engine.run_steps(12)
    assert "a" in engine.first_s
    assert "y" not in engine.first_s
    engine.run()
    assert engine.scheduler.scheduler_config.long_prefill_token_threshold == 0
    assert all(sum(step.values()) >= 63 for step in engine.served[:54]), "no step is wasted"


def test_budgets_follow_the_plan_but_never_exceed_the_engines(make, virtual):
    engine = use(make(places=8, step_tokens=128), ordered(lambda e: e.job.id, token_budget=40, max_running=2))
    engine.add(*(virtual.make_request(f"r{index}", 100, 10) for index in range(4)))
    engine.run_steps(12)
    assert max(sum(step.values()) for step in engine.served) == 40
    assert max(len(step) for step in engine.served) == 2
    use(engine, ordered(lambda e: e.job.id, token_budget=10**6, max_running=10**6))
    engine.run()
    assert max(sum(step.values()) for step in engine.served) <= 128
    assert engine.scheduler.max_num_active_reqs == 8


def test_without_chunked_prefill_the_token_budget_stays_the_engines(make, virtual):
    """A smaller one would keep out for good whoever has a longer prompt."""
    engine = make(places=8)
    engine.scheduler._tempo_chunks = False
    use(engine, ordered(lambda e: e.job.id, token_budget=40))
    engine.add(virtual.make_request("a", 300))
    engine.step()
    assert engine.served == [{"a": 300}]


def test_a_paused_engine_is_left_alone(make, virtual):
    from vllm.v1.core.sched.interface import PauseState

    engine = use(make(), lambda snapshot, _: plan(snapshot, preempt=[e.job.id for e in snapshot.entries if e.running]))
    engine.add(virtual.make_request("a", output=40))
    engine.step()
    engine.scheduler.set_pause_state(PauseState.PAUSED_NEW)
    engine.add(virtual.make_request("b"))
    engine.run_steps(45)
    assert list(engine.done_s) == ["a"]
    engine.scheduler.set_pause_state(PauseState.UNPAUSED)
    use(engine, by_name)
    engine.run()
    assert whole(engine, {"a": 40, "b": 8})


def test_a_request_waiting_for_its_grammar_is_not_planned_until_it_is_ready(make, virtual):
    class FakeGrammar:
        def accept_tokens(self, *_):
            return True

        def is_terminated(self):
            return False

    seen = []

    def policy(snapshot, now_s):
        seen.append({entry.job.id for entry in snapshot.entries})
        return by_name(snapshot, now_s)

    engine = use(make(places=1), policy)
    constrained = virtual.make_request("a", structured=True)
    constrained.structured_output_request.grammar = compiling = Future()
    engine.add(constrained, virtual.make_request("b"), virtual.make_request("c"))
    engine.run_steps(4)
    assert all("a" not in names for names in seen)
    compiling.set_result(FakeGrammar())
    engine.run()
    assert sorted(engine.done_s, key=engine.done_s.get) == ["b", "a", "c"]
    assert whole(engine, {"a": 8, "b": 8, "c": 8})


@BOTH
def test_step_times_are_learned_while_serving(make, virtual, kind):
    engine = make(kind, places=32)
    engine.cost = lambda tokens, sequences: 0.01 + 0.0002 * (tokens - sequences) + 0.0005 * sequences
    for index in range(120):
        engine.add(virtual.make_request(f"r{index}", 20 + index * 5 % 300, 10 + index % 30))
        engine.run_steps(2)
    engine.run()
    model = engine.scheduler.tempo.meter.model
    assert model.seconds(10, 200) == pytest.approx(0.01 + 0.04 + 0.005, rel=0.25)


def test_the_engine_serves_where_vllm_lacks_what_the_plugin_needs(make, virtual, monkeypatch):
    monkeypatch.setattr("tempo_vllm.mixin.SEAM", ("running", "gone_in_the_next_vllm"))
    engine = make(places=2)
    engine.add(*(virtual.make_request(name) for name in "ba"))
    engine.run()
    status = engine.scheduler.tempo.status()
    assert status["state"] == "fallback"
    assert status["reason"] == "this vLLM is not one that Tempo knows: its scheduler lacks gone_in_the_next_vllm"
    assert whole(engine, {"a": 8, "b": 8})


def test_the_engine_serves_and_says_so_where_the_plugin_cannot_be_imported(make, virtual, monkeypatch, tmp_path):
    import tempo_vllm.scheduler

    monkeypatch.setitem(sys.modules, "tempo_vllm.mixin", None)
    monkeypatch.setenv("TEMPO_STATUS_FILE", str(tmp_path / "status.json"))
    spec = importlib.util.spec_from_file_location("crippled", tempo_vllm.scheduler.__file__)
    crippled = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(crippled)
    monkeypatch.setitem(virtual.SCHEDULERS, "crippled-async", crippled.TempoAsyncScheduler)
    engine = make("crippled-async")
    engine.add(virtual.make_request("a"))
    engine.run()
    assert whole(engine, {"a": 8})
    assert wait_for(tmp_path / "status.json")["state"] == "fallback"


def test_the_status_file_tells_what_the_scheduler_does(make, virtual, monkeypatch, tmp_path, pool):
    monkeypatch.setenv("TEMPO_STATUS_FILE", str(tmp_path / "status.json"))
    engine = make(pool=pool, places=2)
    engine.add(*(virtual.make_request(f"r{index}") for index in range(4)))
    engine.run_steps(3)
    expected = {"state": "active", "policy": "tempo", "steps": 3, "running": 2, "waiting": 2, "places": 2}
    wait_until(lambda: expected.items() <= wait_for(tmp_path / "status.json").items())
    assert 0.0 < wait_for(tmp_path / "status.json")["cache_used"] < 1.0
    engine.run()
    idle = {"running": 0, "waiting": 0, "cache_used": 0.0}
    wait_until(lambda: idle.items() <= wait_for(tmp_path / "status.json").items())


def wait_for(path: Path) -> dict:
    """The status, once it is there; the thread that writes it starts with the scheduler."""
    for _ in range(500):
        if path.exists():
            return json.loads(path.read_text())
        time.sleep(0.01)
    raise AssertionError("no status was written")
