import pytest

from tempo_bench.accounting import CallRecord, UnitRecord
from tempo_bench.capacity import capacity
from tempo_bench.workload import Kind

MIX = {Kind.CHAT: 1, Kind.TOOL: 1}


def unit(kind, sent_s, ended_s, output, *, prompt=0, error=None):
    call = CallRecord(sent_s, ended_s, ((ended_s, output),), prompt, "", error)
    return UnitRecord("u", kind, sent_s, ((call,),))


def test_capacity_is_work_done_over_the_work_of_a_mean_unit():
    steady = [unit(kind, t, t + 1, tokens) for t in range(10) for kind, tokens in ((Kind.CHAT, 100), (Kind.TOOL, 50))]
    found = capacity(steady, MIX, 2.0, 8.0)
    assert found.output_tokens_per_s == pytest.approx(150.0)
    assert found.unit_work == pytest.approx(75.0)
    assert found.units_per_s == pytest.approx(2.0)


def test_a_call_that_reaches_into_the_window_counts_by_its_share():
    records = [unit(Kind.CHAT, 0.0, 4.0, 100), unit(Kind.TOOL, 0.0, 2.0, 100)]
    assert capacity(records, MIX, 2.0, 4.0).output_tokens_per_s == pytest.approx(25.0)


def test_a_prompt_token_counts_a_quarter():
    records = [unit(Kind.CHAT, 0.0, 1.0, 100, prompt=400), unit(Kind.TOOL, 0.0, 1.0, 200)]
    found = capacity(records, MIX, 0.0, 1.0)
    assert found.unit_work == pytest.approx(200.0)
    assert found.units_per_s == pytest.approx(2.0)


def test_more_of_one_kind_in_the_window_than_in_the_mix_does_not_bias_it():
    records = [unit(Kind.CHAT, t, t + 1, 100) for t in range(10)] + [unit(Kind.TOOL, 20.0, 21.0, 300)]
    assert capacity(records, MIX, 0.0, 10.0).units_per_s == pytest.approx(0.5)


def test_failures_count_for_nothing():
    records = [unit(Kind.CHAT, 0.0, 1.0, 100), unit(Kind.TOOL, 0.0, 1.0, 100)]
    failed = [unit(Kind.CHAT, 0.0, 1.0, 900, error="HTTP 500")]
    assert capacity(records + failed, MIX, 0.0, 1.0) == capacity(records, MIX, 0.0, 1.0)


def test_a_kind_that_never_finished_is_named():
    with pytest.raises(ValueError, match="no tool finished; calibrate for longer"):
        capacity([unit(Kind.CHAT, 0.0, 1.0, 100)], MIX, 0.0, 1.0)
