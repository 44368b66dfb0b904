"""What each request can still earn, against the ledgers that will count it."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_core.density import Outlook, outlook
from tempo_core.gain import RequestLedger
from tempo_core.slo import GainRule, Objectives, Pattern, SLOClass
from tempo_core.snapshot import Entry, Job, Settings, Snapshot
from tempo_core.steptime import StepTime

CHAT = SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=1.0, tbt_s=0.1), GainRule(decay=inf))
AGENT = SLOClass("agent", Pattern.COLLECTIVE, Objectives(per_stage_s=20.0))
TOOL = SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=8.0))
STEP = StepTime(0.02, 0.001, 0.0005, 0.0)
PROMPT = 50


def stream(slo: SLOClass, cap: int, arrival_s: float = 0.0) -> Job:
    """A stream of which it is known that it ends at its cap."""
    return Job("s", slo, arrival_s=arrival_s, prompt_tokens=PROMPT, max_tokens=cap, lengths=(1e4,) * 7)


def alone(entry: Entry, now_s: float) -> float:
    return float(outlook(Snapshot([entry], 4, 512, STEP), now_s).gain[0])


@given(out=st.integers(1, 300), left=st.integers(1, 300), elapsed_s=st.floats(0.0, 60.0))
def test_a_hard_stream_expects_what_its_ledger_will_count(out: int, left: int, elapsed_s: float) -> None:
    entry = Entry(stream(CHAT, out + left), out, PROMPT + out - 1, running=True, first_token_s=min(0.5, elapsed_s))
    ledger = RequestLedger(CHAT, 0.0)
    ledger.tokens(0.0, out)
    before = ledger.finish(0.0, PROMPT).gain
    for token in range(1, left + 1):
        ledger.tokens(elapsed_s + token * STEP.seconds(1, 0, 0), 1)
    expected = ledger.finish(elapsed_s, PROMPT).gain - before
    assert alone(entry, elapsed_s) == pytest.approx(expected, abs=2.0 * CHAT.gain.output_token)


def test_a_hard_streams_prompt_is_worth_nothing_as_its_ledger_has_it() -> None:
    soft = replace(CHAT, gain=GainRule())
    assert alone(Entry(stream(CHAT, 10)), 0.0) == pytest.approx(2.0 * 10)
    assert alone(Entry(stream(soft, 10)), 0.0) == pytest.approx(PROMPT + 2.0 * 10)


def tool(id_: str, deadline_s: float) -> Job:
    return Job(id_, TOOL, arrival_s=0.0, prompt_tokens=PROMPT, max_tokens=100, deadline_s=deadline_s)


def test_the_horizon_is_how_late_the_latest_would_start_and_never_beyond_the_work_at_hand() -> None:
    def horizon_s(deadline_s: float) -> float:
        entries = [Entry(tool(f"t{i}", deadline_s)) for i in range(10)]
        return outlook(Snapshot(entries, 1, 512, STEP), 0.1).horizon_s

    alone = outlook(Snapshot([Entry(tool("t", 8.0))], 1, 512, STEP), 0.1)
    assert horizon_s(1000.0) == pytest.approx(0.5)
    assert 0.5 < horizon_s(10.0 * alone.work_s) < 10.0 * alone.work_s
    assert alone.horizon_s <= alone.work_s


def test_what_the_cache_has_of_a_waiting_request_costs_nothing() -> None:
    def cost_s(found: int) -> float:
        return float(outlook(Snapshot([Entry(tool("t", 8.0), computed=found)], 1, 512, STEP), 0.0).own_cost_s[0])

    assert cost_s(0) - cost_s(48) == pytest.approx(48 * STEP.per_prefill_token_s)


@pytest.mark.parametrize(("share", "stands"), [(0.9, (True, True)), (1.4, (False, True)), (1.6, (False, False))])
def test_a_target_is_given_up_once_it_is_expected_to_be_missed_by_half(share: float, stands: tuple[bool, bool]) -> None:
    takes_s = float(outlook(Snapshot([Entry(tool("t", 8.0))], 1, 512, STEP), 0.0).run_s[0])
    view = outlook(Snapshot([Entry(tool("t", takes_s / share))], 1, 512, STEP), 0.0)
    assert (bool(view.expected[0]), bool(view.attainable[0])) == stands


def test_a_program_with_tools_has_all_to_lose_as_long_as_it_can_be_on_time() -> None:
    def lost(deadline_s: float, *, tools: bool, decay: float = 1.0) -> float:
        slo = replace(AGENT, gain=GainRule(decay=decay))
        job = Job("a", slo, arrival_s=0.0, prompt_tokens=PROMPT, max_tokens=100, deadline_s=deadline_s, tools=tools)
        view = outlook(Snapshot([Entry(job)], 1, 512, STEP), 0.1)
        return float(view.loss_density[0] / view.density[0])

    assert lost(1000.0, tools=False) == 0.0
    assert lost(1000.0, tools=True) == pytest.approx(1.0)
    assert lost(1000.0, tools=True, decay=inf) == pytest.approx(2.0)  # the promise too, which counts where gain is hard
    assert 0.0 < lost(0.01, tools=True) == lost(0.01, tools=False) < 0.9


def promises(gain: GainRule, deadlines_s: list[float]) -> tuple[list[float], float, float]:
    """What each promise counts that waiting breaks, and what the mean request loses of its gain, and has at stake."""
    slo = replace(TOOL, gain=gain)
    entries = [
        Entry(Job(f"t{i}", slo, arrival_s=0.0, prompt_tokens=PROMPT, max_tokens=100, deadline_s=deadline_s))
        for i, deadline_s in enumerate(deadlines_s)
    ]

    def view(value: float) -> Outlook:
        return outlook(Snapshot(entries, 1, 512, STEP, Settings(promise_value=value)), 0.1)

    plain = view(0.0)
    broken = plain.attainable & (plain.slack_s < plain.horizon_s)
    counts = ((view(1.0).loss_density - plain.loss_density) * plain.cost_s)[broken].tolist()
    lost = plain.loss_density * plain.cost_s
    assert counts
    return counts, float(lost.mean()), float(plain.gain.mean())


deadlines_s = st.lists(st.floats(1.0, 8.0), min_size=4, max_size=20).map(lambda others: [1.5, *others])
"""The first can't wait."""


@given(deadlines_s)
def test_a_promise_of_soft_gain_counts_three_mean_losses_and_no_more_than_their_stake(deadlines: list[float]) -> None:
    counts, lost, stake = promises(GainRule(), deadlines)
    assert counts == pytest.approx([min(3.0 * lost, stake)] * len(counts))


@given(deadlines_s)
def test_a_promise_of_hard_gain_counts_the_mean_stake(deadlines: list[float]) -> None:
    counts, _, stake = promises(GainRule(decay=inf), deadlines)
    assert counts == pytest.approx([stake] * len(counts))


def test_beside_what_was_promised_nothing_a_promise_of_soft_gain_counts_the_mean_stake_too() -> None:
    view = outlook(Snapshot([Entry(tool("t", 8.0))], 1, 512, STEP), 0.1)
    assert view.loss_after(np.array([1e6])) == pytest.approx(2.0 * view.gain, rel=1e-3)
