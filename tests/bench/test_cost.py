import os

import pytest
from aiohttp import web

from tempo_bench import passthrough, stand_in
from tempo_bench.hops import Effort, Path, compare, measure_path
from tempo_bench.passes import SIZES, measure_passes, snapshot
from tempo_core.policies import POLICIES

LITTLE = Effort(16, 32, 4, 4)


@pytest.fixture
async def serve():
    runners = []

    async def start(app):
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in reversed(runners):
        await runner.cleanup()


async def test_a_path_is_measured_in_cpu_and_latency(serve):
    backend = await serve(stand_in.build_app(0.0))
    row = await measure_path(Path("direct", backend, (os.getpid(),)), "m", LITTLE)
    assert row["path"] == "direct"
    assert 0.0 < row["c1_p50_ms"] <= row["c1_p99_ms"]
    assert row["request_cpu_ms"] >= 0.0
    assert row["chunk_cpu_ms"] >= 0.0


async def test_the_peer_passes_answers_and_streams_through(serve):
    backend = await serve(stand_in.build_app(0.0))
    plain = await serve(passthrough.build_app(backend))
    row = await measure_path(Path("passthrough", plain), "m", LITTLE)
    assert row["stream_p50_ms"] > 0.0
    assert row["request_cpu_ms"] == 0.0


async def test_a_path_that_answers_with_an_error_is_not_measured(serve):
    app = web.Application()
    with pytest.raises(Exception, match="404"):
        await measure_path(Path("broken", await serve(app)), "m", LITTLE)


def test_paths_are_compared_with_the_direct_one_and_with_the_plain_proxy():
    def row(name, cpu, c1):
        return {"path": name, "request_cpu_ms": cpu, "chunk_cpu_ms": cpu / 10, "c1_p50_ms": c1, "c16_p50_ms": 2 * c1}

    direct, peer, router = compare([row("direct", 0.0, 1.0), row("passthrough", 0.2, 1.5), row("router", 0.3, 1.7)])
    assert direct["added_c1_p50_ms"] == 0.0
    assert peer["request_cpu_ratio"] == 1.0
    assert (router["added_c1_p50_ms"], router["added_c16_p50_ms"]) == (0.7, 1.4)
    assert (router["request_cpu_ratio"], router["chunk_cpu_ratio"]) == (1.5, 1.5)


def test_no_ratio_is_made_of_a_cost_too_small_to_measure():
    rows = [
        {"path": name, "request_cpu_ms": 0.0, "chunk_cpu_ms": 0.0, "c1_p50_ms": 1.0, "c16_p50_ms": 1.0}
        for name in ("direct", "passthrough")
    ]
    assert compare(rows)[1]["request_cpu_ratio"] is None


@pytest.mark.parametrize("policy", ["fcfs", "tempo"])
@pytest.mark.parametrize("size", SIZES)
def test_policies_plan_the_benchmarks_snapshots(policy, size):
    facts = snapshot(size)
    plan = POLICIES[policy](facts, 1_000.0)
    assert sorted(plan.order) == sorted(entry.job.id for entry in facts.entries)


def test_snapshots_hold_every_class_running_and_waiting():
    entries = snapshot(64).entries
    for running in (True, False):
        assert {e.job.slo.name for e in entries if e.running is running} == {"chat", "tool", "agent"}


def test_passes_are_timed_for_both_policies_at_every_size():
    now = iter(range(10**9))
    rows = measure_passes(seconds=50e-6, clock=lambda: next(now) * 1e-6)
    assert [(row["requests"], row["policy"]) for row in rows] == [
        (size, policy) for size in SIZES for policy in ("fcfs", "tempo")
    ]
    assert all(row["p50_us"] == pytest.approx(1.0) for row in rows)
