"""Service gain, against the paper's formulas worked by hand."""

from math import inf, isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_core.gain import ProgramLedger, RequestLedger, fade, token_value
from tempo_core.slo import GainRule, Objectives, Pattern, SLOClass

HARD = GainRule(decay=inf)
CHAT = SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=2.0, tbt_s=0.1))
TOOL = SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=20.0))
AGENT = SLOClass("agent", Pattern.COLLECTIVE, Objectives(per_stage_s=20.0))
BATCH = SLOClass("batch", Pattern.BEST_EFFORT)

gaps = st.lists(st.floats(0.001, 5.0), min_size=1, max_size=60)


def stream(slo: SLOClass, times: list[float], prompt: int = 10):
    ledger = RequestLedger(slo, arrival_s=100.0)
    for time in times:
        ledger.tokens(100.0 + time, 1)
    return ledger.finish(100.0 + times[-1], prompt)


def hard(slo: SLOClass) -> SLOClass:
    return SLOClass(slo.name, slo.pattern, slo.objectives, HARD)


def test_a_stream_on_pace_earns_all_its_tokens() -> None:
    outcome = stream(CHAT, [1.0 + 0.0625 * i for i in range(5)])
    assert outcome.gain == pytest.approx(10 + 2 * 5)
    assert outcome.attained


def test_a_late_first_token_fades_the_prompts_share() -> None:
    outcome = stream(CHAT, [4.0])
    # Input: 10 * 2/4. Output: O = 1 against O* = (4 - 2) / 0.1 = 20, so 2 * 1/20.
    assert outcome.gain == pytest.approx(10 * 0.5 + 2 / 20)
    assert not outcome.attained


def test_an_early_first_token_banks_no_slack_for_later_ones() -> None:
    outcome = stream(CHAT, [0.1, 1.1])
    # The second token: O = 2 against O* = (1.1 - 0.1) / 0.1 = 10.
    assert outcome.gain == pytest.approx(10 + 2 + 2 * 2 / 10)


def test_the_decay_exponent_sharpens_the_fade() -> None:
    slo = SLOClass("chat", Pattern.LATENCY, CHAT.objectives, GainRule(output_token=0.0, decay=2.0))
    assert stream(slo, [4.0]).gain == pytest.approx(10 * 0.25)


def test_several_tokens_at_once_count_as_if_the_last_of_them() -> None:
    ledger = RequestLedger(CHAT, 0.0)
    ledger.tokens(1.0, 1)
    ledger.tokens(2.0, 4)  # O = 5 against O* = (2 - 1) / 0.1 = 10
    assert ledger.finish(2.0, 0).gain == pytest.approx(2 * 1 + 2 * 4 * 0.5)


def test_goodput_counts_each_token_of_a_stream_by_its_own_due_time() -> None:
    # Due at 2.0, 2.1, 2.2: the first two come in time, the third does not.
    outcome = stream(hard(CHAT), [2.0, 2.1, 2.3])
    assert outcome.gain == pytest.approx(2 * 2)


def test_a_deadline_response_earns_everything_in_time_and_its_share_when_late() -> None:
    assert stream(TOOL, [1.0, 20.0]).gain == pytest.approx(10 + 2 * 2)
    assert stream(TOOL, [1.0, 40.0]).gain == pytest.approx((10 + 2 * 2) / 2)
    assert stream(hard(TOOL), [1.0, 20.1]).gain == 0.0
    assert not stream(TOOL, [20.1]).attained


def test_a_callers_own_deadline_replaces_the_classes() -> None:
    ledger = RequestLedger(TOOL, 0.0, deadline_s=40.0)
    ledger.tokens(30.0, 1)
    outcome = ledger.finish(30.0, 10)
    assert outcome.attained
    assert outcome.gain == pytest.approx(12)


def test_best_effort_is_worth_the_same_whenever_it_ends() -> None:
    assert stream(BATCH, [1.0]).gain == stream(BATCH, [10_000.0]).gain == 12
    assert stream(BATCH, [10_000.0]).attained


def test_a_response_without_tokens_earns_and_attains_nothing() -> None:
    for slo in (CHAT, TOOL, BATCH, AGENT):
        outcome = RequestLedger(slo, 0.0).finish(1.0, 100)
        assert outcome.gain == 0.0
        assert not outcome.attained
        assert isnan(outcome.ttft_s)


def test_a_program_earns_all_its_calls_when_the_last_one_ends() -> None:
    program = ProgramLedger(AGENT, arrival_s=0.0)
    for stage, end in enumerate((10.0, 30.0, 80.0)):
        call = RequestLedger(AGENT, 0.0)
        call.tokens(end, 50)
        outcome = call.finish(end, 100)
        assert outcome.gain == 0.0
        program.call_ended(outcome, end, stage)
    assert program.value == 3 * (100 + 2 * 50)
    late = program.finish()
    assert late.gain == pytest.approx(600 * 60 / 80)  # three stages of 20 s
    assert not late.attained


def test_weights_scale_gain_and_nothing_else() -> None:
    heavy = SLOClass("chat", Pattern.LATENCY, CHAT.objectives, GainRule(weight=4.0))
    light, weighted = stream(CHAT, [1.0, 3.0]), stream(heavy, [1.0, 3.0])
    assert weighted.gain == pytest.approx(4 * light.gain)
    assert weighted.ttlt_s == light.ttlt_s


@given(target=st.floats(1e-3, 1e3), measured=st.floats(1e-3, 1e6), decay=st.floats(0.1, 100))
def test_what_is_kept_lies_between_nothing_and_all(target: float, measured: float, decay: float) -> None:
    assert 0.0 <= fade(target, measured, decay) <= 1.0
    assert fade(target, min(target, measured), decay) == 1.0
    assert fade(target, target * 1.01, inf) == 0.0


@given(gaps, st.floats(1.0, 3.0), st.sampled_from([CHAT, TOOL, hard(CHAT), hard(TOOL)]))
def test_slower_never_earns_more(gaps: list[float], stretch: float, slo: SLOClass) -> None:
    times = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    slower = [time * stretch for time in times]
    # A slower first token moves the pace's origin back too, by no more than it moves the tokens.
    assert stream(slo, slower).gain <= stream(slo, times).gain + 1e-9


@given(gaps, st.sampled_from([CHAT, TOOL, BATCH, hard(CHAT), hard(TOOL)]))
def test_no_response_earns_more_than_its_tokens_are_worth(gaps: list[float], slo: SLOClass) -> None:
    times = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    assert 0.0 <= stream(slo, times).gain <= token_value(slo.gain, 10, len(times)) + 1e-9
