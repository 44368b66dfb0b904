"""Programs and their records for tests of what keeps their graphs."""

from math import nan

from tempo_api.wire import Intake
from tempo_core.gain import Outcome
from tempo_core.graphs import Graph, Record, Stage
from tempo_core.slo import Objectives, Pattern, SLOClass
from tempo_sidecar.history import Pacing

AGENT = SLOClass("agent", Pattern.COLLECTIVE, Objectives(end_to_end_s=100.0))
FAST = Pacing(write_s=0.01, reload_s=1e9, retry_s=0.01, longest_retry_s=0.05, max_pending=3)


def record(number, rank=None, slo_class="agent"):
    """The record of a graph that is like no other number's."""
    stages = [Stage(1, 100.0, 100.0, 100.0, 0.0)] * (number + 1)
    return Record(slo_class, Graph.of(stages).packed, float(number if rank is None else rank))


def begin(keeper, program, stage, now_s=0.0, **more):
    """One call arrives as the router would announce it; returns its intake and the call."""
    intake = Intake(
        slo_class="agent",
        program=program,
        stage=stage,
        deadline_s=100.0 - now_s,
        program_elapsed_s=now_s,
        final=more.get("final", False),
    )
    return keeper.begin(intake, more.get("slo", AGENT), 100, now_s)


def run_program(keeper, program, outputs):
    """One call after the other, each a second long, and the end; returns the intakes."""
    intakes = []
    for stage, output in enumerate(outputs):
        intake, call = begin(keeper, program, stage, float(stage), final=stage == len(outputs) - 1)
        intakes.append(intake)
        keeper.end(call, Outcome("agent", 100, output, nan, nan, 1.0, 0.0, attained=True), stage + 1.0)
    return intakes
