import json

import pytest

from support.fake_engine import chunk, event
from support.serving import QUICKSTART
from tempo_api.manifest import load_pool
from tempo_api.openai import Endpoint
from tempo_api.wire import Intake
from tempo_sidecar.analyse import analyse
from tempo_sidecar.lengths import WindowLengths
from tempo_sidecar.tracker import Tracker

SSE, JSON = "text/event-stream", "application/json"
DONE = b"data: [DONE]\n\n"


class Clock:
    """Virtual time."""

    now_s = 1000.0

    def __call__(self):
        return self.now_s


class Following:
    """A tracker of one request, and what it told."""

    def __init__(self, content_type=SSE, status=200, slo_class="chat", deadline_s=None):
        self.clock, self.told = Clock(), []
        intake = Intake(slo_class=slo_class, deadline_s=deadline_s)
        work = analyse(intake, {}, load_pool(QUICKSTART), WindowLengths(), self.clock(), endpoint=Endpoint.CHAT)
        self.tracker = Tracker(work, self.clock, self.told.append, drop_usage=True)
        self.tracker.begin(status, content_type)

    def after(self, seconds, data):
        self.clock.now_s += seconds
        return self.tracker.feed(data)


def usage(tokens):
    return event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}})


def test_times_run_from_the_arrival_to_each_token():
    f = Following()
    f.after(0.5, event(chunk("chat", 0)))
    f.after(0.1, event(chunk("chat", 1)) + event(chunk("chat", 2)))
    f.after(9.0, usage(3) + DONE)
    f.tracker.close()
    outcome = f.tracker.finish()
    assert (outcome.ttft_s, outcome.tbt_s, outcome.ttlt_s) == pytest.approx((0.5, 0.05, 0.6))
    assert (outcome.prompt_tokens, outcome.output_tokens, outcome.attained) == (3, 3, True)
    assert sum(f.told) == 3


def test_tokens_that_no_event_showed_are_counted_from_the_usage_at_the_time_of_the_last_that_did():
    f = Following()
    f.after(0.5, event(chunk("chat", 0)))
    f.after(1.0, usage(4) + DONE)
    f.tracker.close()
    outcome = f.tracker.finish()
    assert (outcome.output_tokens, outcome.ttlt_s) == (4, pytest.approx(0.5))
    assert sum(f.told) == 4


def test_a_stream_that_ends_without_done_is_told_so_and_counts_as_broken():
    f = Following()
    f.after(0.1, event(chunk("chat", 0)))
    assert f.tracker.broken
    assert b'"code":"upstream_failed"' in f.tracker.close()


def test_a_response_ends_with_its_own_last_event_which_counts_what_no_event_showed():
    f = Following()
    delta = event({"type": "response.output_text.delta", "delta": "a"})
    response = {"status": "incomplete", "usage": {"input_tokens": 3, "output_tokens": 4}}
    last = event({"type": "response.completed", "response": response})
    assert f.after(0.5, delta) + f.after(0.1, last) + f.tracker.close() == delta + last
    outcome = f.tracker.finish()
    assert (outcome.prompt_tokens, outcome.output_tokens, outcome.ttft_s) == (3, 4, pytest.approx(0.5))
    assert (f.tracker.broken, f.tracker.truncated, f.tracker.learnable) == (False, True, True)


def test_an_engines_own_error_event_counts_as_broken_and_is_not_doubled():
    f = Following()
    error = event({"error": {"message": "EngineCore died"}}) + DONE
    assert f.after(0.1, error) == error
    assert f.tracker.close() == b""
    assert f.tracker.broken


def test_a_whole_answers_tokens_appear_when_it_does():
    f = Following(JSON, slo_class="tool", deadline_s=15.0)
    body = json.dumps({"choices": [{"finish_reason": "length"}], "usage": {"prompt_tokens": 3, "completion_tokens": 8}})
    f.after(4.0, body[:9].encode())
    f.after(1.0, body[9:].encode())
    f.tracker.close()
    outcome = f.tracker.finish()
    assert (outcome.output_tokens, outcome.ttlt_s, outcome.gain) == (8, pytest.approx(5.0), 3 + 2 * 8)
    assert f.tracker.truncated
    assert f.tracker.learnable


@pytest.mark.parametrize(("content_type", "status"), [(JSON, 400), ("text/plain", 200), (SSE, 500)])
def test_what_is_no_answer_passes_unread_and_earns_nothing(content_type, status):
    f = Following(content_type, status)
    assert f.after(1.0, b"whatever") == b"whatever"
    assert f.tracker.close() == b""
    assert not f.tracker.broken
    assert not f.tracker.learnable
    assert (f.tracker.finish().gain, f.tracker.finish().attained) == (0.0, False)
