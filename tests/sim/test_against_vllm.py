"""The simulated engine beside vLLM's real scheduler and memory with the plug-in in it, both in virtual time."""

import importlib.util
import random
import warnings
from dataclasses import replace

import pytest

from support.policies import ordered, plan
from support.tiny_model import make_tiny_model
from tempo_core.policies import POLICIES
from tempo_core.slo import Pattern, SLOClass
from tempo_core.snapshot import Job, Settings
from tempo_sim.batch import Live
from tempo_sim.engine import Replica
from tempo_sim.kv import Holding
from tempo_sim.profiles import EngineProfile
from tempo_vllm.pools import STAND_IN

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")

PLACES, STEP_TOKENS, BLOCK, STEP_S, START_S, SCARCE = 8, 64, 16, 0.05, 1000.0, 40
SLO = SLOClass("any", Pattern.BEST_EFFORT)
by_name = ordered(lambda entry: entry.job.id)


least_to_compute = ordered(lambda e: (e.job.prompt_tokens + e.generated - e.computed, e.job.id))


def displacing(snapshot, _):
    """By name; whoever is better takes the place of whoever is worse."""
    order = sorted(snapshot.entries, key=lambda entry: entry.job.id)
    return plan(snapshot, order, preempt=[entry.job.id for entry in order[snapshot.max_running :] if entry.running])


def tenant(name):
    return "abc"[int(name[1:]) % 3]


def traffic(seed):
    """(name, arrival, prompt, output), whose names say nothing of their arrivals."""
    draw = random.Random(seed)
    names = [f"r{index:02}" for index in range(40)]
    draw.shuffle(names)
    at_s, requests = START_S, []
    for name in names:
        at_s += draw.choice((0.0, draw.uniform(0.0, 8 * STEP_S)))
        requests.append((name, at_s, draw.randint(1, 150), draw.randint(1, 60)))
    return requests


def simulated(requests, policy, blocks):
    profile = EngineProfile("even", STEP_S, 0.0, 0.0, STEP_S, 0.0, 0.0, PLACES, STEP_TOKENS, blocks, BLOCK)
    engine, lives = Replica(profile, policy, Settings()), []
    for name, at_s, prompt, output in requests:
        while engine.busy and engine.now_s < at_s:
            engine.advance(at_s)
        job = Job(name, SLO, arrival_s=at_s, prompt_tokens=prompt, max_tokens=output, tenant=tenant(name))
        lives.append(Live(job, output, Holding(name, ())))
        engine.submit(lives[-1], at_s)
    while engine.busy:
        engine.advance(float("inf"))
    counts = engine.counts
    first_s = {live.job.id: live.stamps[0] for live in lives}
    last_s = {live.job.id: live.stamps[-1] for live in lives}
    return first_s, last_s, (counts.steps, counts.planned_preemptions, counts.memory_preemptions)


@pytest.fixture(scope="module")
def vllms(tmp_path_factory):
    model = make_tiny_model(tmp_path_factory.mktemp("model"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from support import virtual_engine as virtual

    def run(requests, policy, blocks):
        # One block is vLLM's own: the null block.
        sizes = {"blocks": blocks + 1, "places": PLACES, "step_tokens": STEP_TOKENS}
        scheduler = virtual.make_scheduler(virtual.SCHEDULERS["tempo"], model, **sizes)
        engine = virtual.VirtualEngine(scheduler, cost=lambda *_: STEP_S, now_s=START_S)
        scheduler.tempo.policies = {"tempo": policy}
        scheduler.tempo.pools.pool = replace(STAND_IN, settings=Settings(fairness=1.0))  # so that tenants are counted
        for name, at_s, prompt, output in requests:
            while scheduler.has_requests() and engine.now_s < at_s:
                engine.step()
            engine.now_s = max(engine.now_s, at_s)
            engine.add(virtual.make_request(name, prompt, output, arrival_s=at_s, tempo_tenant=tenant(name)))
        engine.run()
        planned = scheduler.tempo.status()["preemptions"]
        scheduler.shutdown()
        return engine.first_s, engine.done_s, (engine.steps, planned, len(engine.preempted))

    return run


@pytest.mark.parametrize("blocks", [2000, SCARCE], ids=["ample memory", "scarce memory"])
@pytest.mark.parametrize(
    "policy",
    [POLICIES["fcfs"], POLICIES["vtc"], by_name, displacing, least_to_compute],
    ids=["fcfs", "vtc", "by name", "displacing", "least to compute"],
)
def test_every_answer_begins_and_ends_when_it_does_under_vllm(vllms, policy, blocks):
    for seed in range(2):
        requests = traffic(seed)
        first_s, last_s, (steps, planned, for_memory) = simulated(requests, policy, blocks)
        vllm_first_s, vllm_last_s, (vllm_steps, vllm_planned, vllm_all) = vllms(requests, policy, blocks)
        assert first_s == pytest.approx(vllm_first_s, abs=1e-6)
        assert last_s == pytest.approx(vllm_last_s, abs=1e-6)
        assert steps == vllm_steps - 1  # vLLM's last one only tells the worker who ended
        assert (planned, planned + for_memory) == (vllm_planned, vllm_all)
        assert (vllm_planned > 0) == (policy is displacing)
        assert (for_memory > 0) == (blocks == SCARCE)
