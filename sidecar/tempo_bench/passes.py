"""How long a scheduling decision takes: the real policies on snapshots like a busy engine's."""

import time
from collections.abc import Callable
from random import Random
from typing import Any, Final

import numpy as np

from tempo_core.lengths import GRID
from tempo_core.policies import POLICIES
from tempo_core.slo import Objectives, Pattern, SLOClass
from tempo_core.snapshot import Entry, Job, Snapshot

SIZES: Final = (64, 256, 1024, 2048)
BUDGET_MS: Final = {256: 1.0, 2048: 5.0}
_NOW_S: Final = 1_000.0
_CLASSES: Final = (
    SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=2.0, tbt_s=0.15)),
    SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=15.0)),
    SLOClass("agent", Pattern.COLLECTIVE, Objectives(per_stage_s=15.0)),
)


def snapshot(size: int, seed: int = 0) -> Snapshot:
    """`size` live requests of three classes, a quarter of them running, some late, agents three to a program."""
    random = Random(seed)  # noqa: S311  # reproducible on purpose
    running = size // 4
    entries = [_entry(random, index, running=index < running) for index in range(size)]
    return Snapshot(entries, max_running=max(running, 1), max_step_tokens=2048)


def _entry(random: Random, index: int, *, running: bool) -> Entry:
    slo = _CLASSES[index % len(_CLASSES)]
    agent = slo.pattern is Pattern.COLLECTIVE
    arrival_s = _NOW_S - random.uniform(0.0, 20.0)
    prompt = int(random.lognormvariate(5.0, 1.0)) + 1
    middle = random.lognormvariate(5.0, 0.7)
    generated = random.randint(1, 100) if running else 0
    job = Job(
        f"request-{index}",
        slo,
        arrival_s=arrival_s,
        prompt_tokens=prompt,
        max_tokens=1024,
        lengths=[middle * (0.3 + 2.0 * p) for p in GRID],
        deadline_s=arrival_s + slo.deadline_s(),
        program=f"program-{index // 9}" if agent else None,
        program_arrival_s=arrival_s if agent else None,
    )
    return Entry(
        job,
        generated=generated,
        computed=prompt + generated if running else 0,
        running=running,
        first_token_s=arrival_s + 1.0 if running else float("nan"),
        waiting_since_s=float("nan") if running else arrival_s,
    )


def measure_passes(seconds: float = 1.0, clock: Callable[[], float] = time.perf_counter) -> list[dict[str, Any]]:
    """Microseconds a pass of `tempo` and, as its peer, `fcfs`, at each size; each pair gets about `seconds`."""
    return [
        {"policy": policy, "requests": size, **_time(policy, size, seconds, clock)}
        for size in SIZES
        for policy in ("fcfs", "tempo")
    ]


def _time(policy: str, size: int, seconds: float, clock: Callable[[], float]) -> dict[str, Any]:
    facts, decide = snapshot(size), POLICIES[policy]
    took: list[float] = []
    began = clock()
    while clock() - began < seconds or len(took) < 20:
        now_s = _NOW_S + 0.02 * len(took)
        start = clock()
        decide(facts, now_s)
        took.append(1e6 * (clock() - start))
    warm = took[len(took) // 10 :]  # the first tenth fills caches
    return {
        "passes": len(warm),
        "p50_us": round(float(np.percentile(warm, 50)), 1),
        "p99_us": round(float(np.percentile(warm, 99)), 1),
    }
