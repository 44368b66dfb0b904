import pytest

from tempo_bench.accounting import CallRecord, UnitRecord, settle
from tempo_bench.workload import Kind
from tempo_core.slo import GainRule, Objectives, Pattern, SLOClass

CLASSES = {
    "chat": SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=1.0, tbt_s=0.5)),
    "tool": SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=4.0), GainRule(weight=3.0)),
    "agent": SLOClass("agent", Pattern.COLLECTIVE, Objectives(per_stage_s=2.0)),
}


def chat(stamps, *, arrival_s=10.0, error=None):
    call = CallRecord(arrival_s, stamps[-1][0] if stamps else arrival_s, tuple(stamps), 20, "hi", error)
    return UnitRecord("u", Kind.CHAT, arrival_s, ((call,),))


def whole(sent_s, ended_s, *, prompt=10, output=5, error=None):
    return CallRecord(sent_s, ended_s, ((ended_s, output),), prompt, "text", error)


def test_a_chat_on_time_earns_every_token_once():
    result = settle(chat([(10.5, 1), (10.9, 1), (11.4, 1)]), CLASSES)
    assert result.gain == 20 + 2 * 3
    assert result.goodput == 2 * 3
    assert result.attained
    assert (result.ttft_s, result.ttlt_s) == (pytest.approx(0.5), pytest.approx(1.4))
    assert result.gaps_s == pytest.approx((0.4, 0.5))


def test_a_chats_late_first_token_fades_its_input_by_hand():
    result = settle(chat([(14.0, 1)]), CLASSES)
    # TTFT 4 s against 1 s: a quarter of 20. O* = (4 - 1) / 0.5 = 6 tokens were due, 1 came.
    assert result.gain == pytest.approx(20 / 4 + 2 / 6)
    assert result.goodput == 0.0
    assert not result.attained


def test_tokens_that_arrive_together_are_one_gap():
    result = settle(chat([(10.5, 1), (11.0, 3)]), CLASSES)
    assert result.output_tokens == 4
    assert result.gaps_s == pytest.approx((0.5,))


def test_a_late_tool_call_keeps_a_share_by_hand():
    record = UnitRecord("u", Kind.TOOL, 1.0, ((whole(1.0, 9.0),),))
    result = settle(record, CLASSES)
    assert result.gain == pytest.approx(3 * (10 + 2 * 5) * 4 / 8)
    assert result.goodput == 0.0
    assert not result.attained
    assert result.ttft_s is None
    assert result.gaps_s == ()


def test_a_tool_calls_time_counts_from_when_it_was_meant_to_leave():
    record = UnitRecord("u", Kind.TOOL, 0.0, ((whole(3.0, 5.0),),))
    assert settle(record, CLASSES).ttlt_s == pytest.approx(5.0)


def test_a_program_earns_all_its_tokens_when_its_last_call_ends_by_hand():
    stages = ((whole(0.0, 1.0), whole(0.0, 2.0)), (whole(2.0, 8.0),))
    result = settle(UnitRecord("u", Kind.AGENT, 0.0, stages), CLASSES)
    # Two stages of 2 s each allow 4 s; it took 8.
    assert result.gain == pytest.approx(3 * (10 + 2 * 5) * 4 / 8)
    assert result.calls == 3
    assert (result.prompt_tokens, result.output_tokens) == (30, 15)
    assert result.ttlt_s == pytest.approx(8.0)
    assert not result.attained


def test_a_program_within_its_stages_time_attains():
    stages = ((whole(0.0, 1.0),), (whole(1.0, 3.9),))
    result = settle(UnitRecord("u", Kind.AGENT, 0.0, stages), CLASSES)
    assert result.attained
    assert result.goodput == result.gain == 2 * (10 + 2 * 5)


@pytest.mark.parametrize(
    "record",
    [
        chat([(10.1, 1), (10.2, 1)], error="cut off"),
        chat([], error="refused"),
        UnitRecord("u", Kind.TOOL, 0.0, ((CallRecord(0.0, 0.1, error="HTTP 500"),),)),
        UnitRecord("u", Kind.AGENT, 0.0, ((whole(0.0, 0.5), CallRecord(0.0, 0.1, error="HTTP 500")),)),
    ],
)
def test_a_failure_earns_nothing_attains_nothing_and_has_no_times(record):
    result = settle(record, CLASSES)
    assert result.error is not None
    assert (result.gain, result.goodput, result.attained) == (0.0, 0.0, False)
    assert (result.ttft_s, result.ttlt_s, result.gaps_s) == (None, None, ())
