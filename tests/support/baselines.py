"""Small requests, and machines to serve them on, for tests of what the baselines' papers claim."""

from collections import Counter
from dataclasses import replace
from math import nan

from tempo_core.slo import Objectives, Pattern, SLOClass
from tempo_core.snapshot import Entry, Job, Plan, Snapshot
from tempo_core.steptime import StepTime
from tempo_core.tenants import INPUT_WEIGHT, OUTPUT_WEIGHT

CHAT = SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=1.0, tbt_s=0.1))
TOOL = SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=8.0))
BATCH = SLOClass("batch", Pattern.BEST_EFFORT)

STEP = StepTime(0.02, 0.001, 0.0005, 0.0)
UNIT = StepTime(1.0, 0.0, 0.0, 0.0)
"""With one place: a single machine on which every token takes a second and preemption costs nothing."""


def job(
    id: str, slo: SLOClass = BATCH, arrival_s: float = 0.0, *, output: float = 20, prompt: int = 10, **facts
) -> Job:
    """A request that is known to need `output` tokens, due when its class says so."""
    facts.setdefault("deadline_s", arrival_s + slo.deadline_s())
    facts.setdefault("lengths", (float(output),) * 7)
    return Job(id, slo, arrival_s=arrival_s, prompt_tokens=prompt, max_tokens=4096, **facts)


def waiting(id: str, slo: SLOClass = BATCH, arrival_s: float = 0.0, since_s: float = nan, **facts) -> Entry:
    return Entry(job(id, slo, arrival_s, **facts), waiting_since_s=since_s)


def running(id: str, slo: SLOClass = BATCH, arrival_s: float = 0.0, generated: int = 1, **facts) -> Entry:
    """A request that decodes; its first token came as it arrived."""
    a_job = job(id, slo, arrival_s, **facts)
    return Entry(a_job, generated, a_job.prompt_tokens + generated - 1, True, arrival_s)


def snapshot(*entries: Entry, places: int = 1, step: StepTime = STEP, tokens: int = 512, **facts) -> Snapshot:
    return Snapshot(entries, places, tokens, step, **facts)


def line(plan: Plan) -> str:
    """The order at a glance."""
    return " ".join(plan.order)


class Watched:
    """A policy, with what a shell would keep for it: tenants' counters and preemptions. `seen` is what it was asked."""

    def __init__(self, policy) -> None:
        self.policy = policy
        self.served: Counter[str] = Counter()
        self.preempted: Counter[str] = Counter()
        self.seen: list[tuple[float, Snapshot]] = []
        self._out: Counter[str] = Counter()
        self._admitted: set[str] = set()

    def __call__(self, facts: Snapshot, now_s: float) -> Plan:
        for entry in facts.entries:
            a_job = entry.job
            if entry.running and a_job.id not in self._admitted:
                self._admitted.add(a_job.id)
                self.served[a_job.tenant] += INPUT_WEIGHT * a_job.prompt_tokens
            self.served[a_job.tenant] += OUTPUT_WEIGHT * (entry.generated - self._out[a_job.id])
            self._out[a_job.id] = entry.generated
        facts = replace(facts, served=dict(self.served), preempted=dict(self.preempted))
        self.seen.append((now_s, facts))
        plan = self.policy(facts, now_s)
        self.preempted.update(plan.preempt)
        return plan
