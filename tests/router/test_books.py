"""One request's accounting, by a clock that the test sets."""

import json
from math import isnan

import pytest

from support.fake_engine import chunk, event
from tempo_api.intake import Resolved
from tempo_api.openai import Ending
from tempo_api.wire import Intake
from tempo_core.slo import Objectives, Pattern, SLOClass
from tempo_router.books import Books

CHAT = SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=1.0, tbt_s=0.1))
TOOL = SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=10.0))
STREAM = (200, "text/event-stream")
WHOLE = (200, "application/json")
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


class FakeClock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return FakeClock()


def books(slo, clock, deadline_s=None):
    intake = Intake(slo_class=slo.name, deadline_s=deadline_s)
    return Books(Resolved(intake, slo, None, ()), clock.now_s, 50, clock)


def word(index):
    return event(chunk("/v1/chat/completions", index))


def test_a_stream_s_tokens_are_stamped_as_they_pass(clock):
    account, seen = books(CHAT, clock), []
    account.on_tokens = seen.append
    account.begin(*STREAM)
    for now_s in (100.5, 100.55, 100.6):
        clock.now_s = now_s
        assert account.feed(word(0)) == word(0)
    _, outcome = account.finish(Ending.COMPLETED)
    assert seen == [1, 1, 1]
    assert (outcome.ttft_s, outcome.tbt_s) == (pytest.approx(0.5), pytest.approx(0.05))
    assert outcome.attained
    assert outcome.gain == pytest.approx(50 + 2 * 3)


def test_choices_are_summed_and_the_first_token_of_any_is_the_first(clock):
    account = books(CHAT, clock)
    account.begin(*STREAM)
    for now_s, texts in ((100.5, ["", "b"]), (100.6, ["a", "b"])):
        clock.now_s = now_s
        account.feed(event({"choices": [{"index": i, "delta": {"content": text}} for i, text in enumerate(texts)]}))
    _, outcome = account.finish(Ending.COMPLETED)
    assert (outcome.output_tokens, outcome.ttft_s) == (3, pytest.approx(0.5))


def test_a_response_s_usage_counts_under_its_own_names(clock):
    account = books(CHAT, clock)
    account.begin(*STREAM)
    delta = event({"type": "response.output_text.delta", "delta": "a"})
    last = event({"type": "response.completed", "response": {"usage": {"input_tokens": 7, "output_tokens": 3}}})
    assert account.feed(delta) + account.feed(last) + account.close() == delta + last
    _, outcome = account.finish(Ending.COMPLETED)
    assert (outcome.prompt_tokens, outcome.output_tokens) == (7, 3)


def test_usage_in_the_stream_replaces_the_estimate_and_counts_tokens_that_came_several_to_an_event(clock):
    account = books(CHAT, clock)
    account.begin(*STREAM)
    account.feed(word(0))
    account.feed(event({"choices": [], "usage": USAGE}))
    account.close()
    _, outcome = account.finish(Ending.COMPLETED)
    assert (outcome.prompt_tokens, outcome.output_tokens) == (7, 3)


def test_a_whole_answer_s_tokens_all_come_at_its_end(clock):
    account = books(TOOL, clock, deadline_s=10.0)
    account.begin(*WHOLE)
    raw = json.dumps({"choices": [{"message": {"content": "abc"}}], "usage": USAGE}).encode()
    assert account.feed(raw[:9]) + account.feed(raw[9:]) == raw
    clock.now_s = 104.0
    assert account.close() == b""
    _, outcome = account.finish(Ending.COMPLETED)
    assert (outcome.ttlt_s, outcome.gain, outcome.attained) == (4.0, 7 + 2 * 3, True)


def test_a_caller_s_own_deadline_counts(clock):
    account = books(TOOL, clock, deadline_s=20.0)
    account.begin(*STREAM)
    clock.now_s = 115.0
    account.feed(word(0))
    assert account.finish(Ending.COMPLETED)[1].attained


@pytest.mark.parametrize(("slo", "gain"), [(CHAT, 50 + 2), (TOOL, 0.0)])
def test_an_answer_that_broke_off_attains_nothing_and_earns_only_what_a_reader_could_read(clock, slo, gain):
    account = books(slo, clock)
    account.begin(*STREAM)
    account.feed(word(0))
    ending, outcome = account.finish(Ending.CLIENT_CLOSED)
    assert (ending, outcome.attained, outcome.gain) == (Ending.CLIENT_CLOSED, False, gain)


def test_an_error_event_of_the_engine_s_makes_a_completed_stream_a_failed_one(clock):
    account = books(CHAT, clock)
    account.begin(*STREAM)
    account.feed(word(0) + event({"error": {"message": "died"}}))
    account.close()
    assert account.finish(Ending.COMPLETED)[0] is Ending.UPSTREAM_FAILED


def test_an_error_s_body_counts_no_tokens(clock):
    account = books(CHAT, clock)
    account.begin(400, "application/json")
    account.feed(b'{"error": {}, "usage": {"prompt_tokens": 1, "completion_tokens": 5}}')
    account.close()
    _, outcome = account.finish(Ending.UPSTREAM_REFUSED)
    assert (outcome.output_tokens, outcome.gain) == (0, 0.0)
    assert isnan(outcome.ttft_s)


def test_a_second_try_begins_anew(clock):
    account = books(TOOL, clock)
    account.begin(*WHOLE)
    account.feed(b'{"broken')
    account.begin(*WHOLE)
    account.feed(json.dumps({"usage": USAGE}).encode())
    account.close()
    assert account.finish(Ending.COMPLETED)[1].output_tokens == 3
