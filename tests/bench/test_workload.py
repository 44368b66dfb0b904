from dataclasses import replace
from itertools import pairwise
from statistics import fmean, median, pstdev

import pytest

from tempo_bench.prompts import EARLIER
from tempo_bench.workload import EARLIER_CHARS, Call, Kind, WorkloadSpec, build_workload, check_classes
from tempo_core.slo import Objectives, Pattern, SLOClass

SPEC = WorkloadSpec(rate_per_s=5.0, seconds=200.0, seed=7)
CLASSES = {
    "chat": SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=1.0, tbt_s=0.1)),
    "tool": SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=5.0)),
    "agent": SLOClass("agent", Pattern.COLLECTIVE, Objectives(per_stage_s=5.0)),
}


def prompts(workload, kind):
    return [call.prompt for unit in workload.units if unit.kind is kind for stage in unit.stages for call in stage]


def test_the_same_seed_gives_the_same_workload_byte_for_byte():
    first, second = build_workload(SPEC), build_workload(SPEC)
    assert repr(first) == repr(second)
    assert first.fingerprint == second.fingerprint


def test_another_seed_gives_another_workload():
    assert build_workload(SPEC).fingerprint != build_workload(replace(SPEC, seed=8)).fingerprint


def test_the_rate_changes_when_but_not_what_is_sent():
    slow, fast = build_workload(SPEC), build_workload(replace(SPEC, rate_per_s=10.0))
    pairs = list(zip(slow.units, fast.units, strict=False))
    assert all(a.stages == b.stages for a, b in pairs)
    assert all(a.at_s == pytest.approx(2.0 * b.at_s) for a, b in pairs)


def test_gaps_between_arrivals_are_exponential():
    units = build_workload(replace(SPEC, seconds=1000.0, mix={Kind.CHAT: 1})).units
    gaps = [later.at_s - earlier.at_s for earlier, later in pairwise(units)]
    assert fmean(gaps) == pytest.approx(1.0 / SPEC.rate_per_s, rel=0.05)
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(1.0, rel=0.05)


def test_arrivals_stay_within_the_run_and_in_order():
    times = [unit.at_s for unit in build_workload(SPEC).units]
    assert times == sorted(times)
    assert times[0] > 0.0
    assert times[-1] < SPEC.seconds


def test_every_block_holds_the_mix_exactly():
    spec = replace(SPEC, mix={Kind.CHAT: 2, Kind.TOOL: 1, Kind.AGENT: 1})
    kinds = [unit.kind for unit in build_workload(spec).units]
    assert len(kinds) > 100
    for start in range(0, len(kinds) - 4, 4):
        assert sorted(kinds[start : start + 4]) == ["agent", "chat", "chat", "tool"]


def test_a_kind_that_the_mix_leaves_out_is_not_sent():
    units = build_workload(replace(SPEC, mix={Kind.CHAT: 1, Kind.TOOL: 0})).units
    assert {unit.kind for unit in units} == {Kind.CHAT}


def test_programs_have_the_papers_stages_and_others_a_single_call():
    for unit in build_workload(SPEC).units:
        widths = [len(stage) for stage in unit.stages]
        assert widths == ([3, 1, 3, 1] if unit.kind is Kind.AGENT else [1])


def test_every_call_carries_its_kinds_cap():
    caps = {Kind.CHAT: 96, Kind.TOOL: 64, Kind.AGENT: 40}
    for unit in build_workload(SPEC).units:
        assert {call.max_tokens for stage in unit.stages for call in stage} == {caps[unit.kind]}


def test_stages_after_the_first_quote_earlier_answers_and_the_first_does_not():
    program = next(unit for unit in build_workload(SPEC).units if unit.kind is Kind.AGENT)
    quoting = [EARLIER in call.prompt for stage in program.stages for call in stage]
    assert quoting == [False] * 3 + [True] * 5


def test_calls_of_a_stage_ask_for_different_things():
    program = next(unit for unit in build_workload(SPEC).units if unit.kind is Kind.AGENT)
    assert len({call.prompt for call in program.stages[0]}) == 3


def test_quoted_answers_are_cut():
    call = Call(f"before {EARLIER} after", 10, 1)
    text = call.text(["x" * 1000, "short"])
    assert text == f"before - {'x' * EARLIER_CHARS}\n- short after"


def test_braces_in_an_answer_are_only_text():
    assert Call(f"{EARLIER}", 10, 1).text(["{oops}"]) == "- {oops}"


def test_prompts_are_many_and_of_varied_length():
    workload = build_workload(SPEC)
    chat, tool = prompts(workload, Kind.CHAT), prompts(workload, Kind.TOOL)
    assert len(set(chat)) > 0.8 * len(chat)
    assert len(set(tool)) == len(tool)
    words = sorted(len(prompt.split()) for prompt in chat)
    assert median(words) < 20
    assert words[-1] > 150
    tool_words = [len(prompt.split()) for prompt in tool]
    assert max(tool_words) > 4 * min(tool_words)


def test_a_pool_with_the_three_classes_is_accepted():
    check_classes(CLASSES)


@pytest.mark.parametrize(
    ("classes", "problem"),
    [
        ({"chat": CLASSES["chat"], "agent": CLASSES["agent"]}, "'tool' of pattern Deadline; there are chat, agent"),
        ({**CLASSES, "tool": replace(CLASSES["chat"], name="tool")}, "'tool' of pattern Deadline; it is Latency"),
    ],
)
def test_a_pool_that_cannot_take_the_mix_is_refused_by_name(classes, problem):
    with pytest.raises(ValueError, match=problem):
        check_classes(classes)
