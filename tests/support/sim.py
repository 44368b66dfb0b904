"""A tiny simulated engine whose figures can be worked out by hand, and workloads for it."""

from dataclasses import replace
from functools import partial
from math import inf

from hypothesis import strategies as st

from tempo_core.slo import GainRule, Objectives, Pattern, SLOClass
from tempo_sim.profiles import EngineProfile
from tempo_sim.run import simulate as simulate_blocks
from tempo_sim.workload import SimCall, SimUnit

TINY = EngineProfile(
    name="tiny",
    decode_base_s=0.010,
    sequence_s=0.001,
    context_token_s=0.00001,
    prefill_base_s=0.010,
    prefill_token_s=0.001,
    prefill_square_s=0.000001,
    max_places=4,
    max_step_tokens=32,
    kv_blocks=24,
    block_size=4,
)
FLAT = replace(TINY, context_token_s=0.0, prefill_square_s=0.0)
"""A step costs 10 ms, 1 ms a sequence that decodes, and 1 ms a token of a prompt."""

simulate = partial(simulate_blocks, block_tokens=TINY.block_size)
"""`tempo_sim.run.simulate` for prefixes in blocks of TINY's size."""

CLASSES = {
    slo.name: slo
    for slo in (
        SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=0.3, tbt_s=0.03)),
        SLOClass("strict", Pattern.LATENCY, Objectives(ttft_s=0.3, tbt_s=0.03), GainRule(weight=2.0, decay=inf)),
        SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=0.5), GainRule(weight=3.0, output_token=8.0)),
        SLOClass("agent", Pattern.COLLECTIVE, Objectives(per_stage_s=0.4)),
        SLOClass("batch", Pattern.BEST_EFFORT),
    )
}


def call(prompt=8, output=4, *, cap=64, delay_s=0.0, prefix=()):
    return SimCall(prompt, output, cap, delay_s, tuple(prefix))


def single(id, at_s=0.0, slo_class="chat", **facts):
    return SimUnit(id, slo_class, at_s, ((call(**facts),),))


def program(id, at_s, *stages):
    return SimUnit(id, "agent", at_s, tuple(tuple(stage) for stage in stages))


@st.composite
def workloads(draw, most=12):
    """Up to `most` units of all classes, some of which share prefixes; every call fits TINY's memory of 96 tokens."""

    def calls(delays):
        lengths = st.tuples(st.integers(1, 60), st.integers(1, 30), st.integers(1, 40))
        prefixes = st.sampled_from([(), (1, 2, 3), (1, 2, 4, 5), (6,)])
        return st.builds(
            lambda facts, delay_s, prefix: SimCall(*facts, delay_s, prefix[: facts[0] // 4]), lengths, delays, prefixes
        )

    waits = st.floats(0.0, 0.3)
    stages = st.lists(st.lists(calls(waits), min_size=1, max_size=3), min_size=1, max_size=3)
    units = []
    at_s = 0.0
    for index in range(draw(st.integers(1, most))):
        at_s += draw(st.floats(0.0, 0.1))
        slo_class = draw(st.sampled_from(sorted(CLASSES)))
        shape = draw(stages) if slo_class == "agent" else [[draw(calls(st.just(0.0)))]]
        units.append(SimUnit(f"u{index}", slo_class, at_s, tuple(tuple(stage) for stage in shape)))
    return units
