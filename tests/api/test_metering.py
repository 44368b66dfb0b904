import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_api.metering import StreamMeter, Usage, WholeMeter, meter_for, read_answer

DONE = b"data: [DONE]\n\n"
SSE, JSON = "text/event-stream", "application/json"


def sse(data, end="\n\n"):
    return f"data: {json.dumps(data)}{end}".encode()


def named(kind, end="\n\n", **fields):
    """An event of the Responses API, as vLLM writes it."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}{end}".encode()


def chat(content=None, finish=None, **delta):
    delta |= {} if content is None else {"content": content}
    return {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def response(status, usage=None, **fields):
    return {"object": "response", "status": status, "usage": usage, "output": [{"type": "message"}], **fields}


USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}
CHAT_STREAM = (
    sse(chat("", role="assistant"))
    + sse(chat("Hé"))
    + b": keep-alive\n\n"
    + sse(chat(reasoning="hm"), "\r\n\r\n")
    + sse({"choices": [{"index": 0, "text": "x"}]})
    + sse(chat(tool_calls=[{"index": 0}]))
    + sse(chat("", finish="length"))
    + sse(USAGE)
    + DONE
)
RESPONSE_STREAM = (
    named("response.created", response=response("in_progress"))
    + named("response.output_item.added", item={"type": "message"})
    + named("response.reasoning_text.delta", delta="hm", end="\r\n\r\n")
    + named("response.output_text.delta", delta="Hé")
    + named("response.output_text.delta", delta="")
    + named("response.output_text.delta", delta='"type": "error"')
    + named("response.function_call_arguments.delta", delta="{")
    + named("response.output_text.done", text="Hé")
    + named("response.completed", response=response("incomplete", {"input_tokens": 3, "output_tokens": 4}))
)


def feed_in_pieces(meter, data, cuts):
    bounds = [0, *sorted(cuts), len(data)]
    fed = [meter.feed(data[a:b]) for a, b in itertools.pairwise(bounds)]
    return sum(tokens for tokens, _ in fed), b"".join(passed for _, passed in fed) + meter.close()


@pytest.mark.parametrize("stream", [CHAT_STREAM, RESPONSE_STREAM])
@given(data=st.data(), drop_usage=st.booleans())
def test_a_stream_counts_the_same_however_the_network_cuts_it(stream, data, drop_usage):
    meter = StreamMeter(drop_usage=drop_usage)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    tokens, passed = feed_in_pieces(meter, stream, cuts)
    assert tokens == 4
    assert passed == (stream.replace(sse(USAGE), b"") if drop_usage else stream)
    assert meter.usage == Usage(3, 4)
    assert (meter.done, meter.truncated, meter.failed) == (True, True, False)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_bytes_that_are_no_events_pass_unchanged_and_count_nothing(junk, cuts):
    meter = StreamMeter(drop_usage=True)
    tokens, passed = feed_in_pieces(meter, junk, [cut for cut in cuts if cut <= len(junk)])
    assert (tokens, passed) == (0, junk)


def test_only_whole_events_are_passed_on():
    meter = StreamMeter()
    event = sse(chat("a"))
    assert meter.feed(event[:-1]) == (0, b"")
    assert meter.feed(event[-1:]) == (1, event)


@pytest.mark.parametrize("before", [b"", sse(USAGE)])
def test_an_event_that_never_ends_is_passed_on_as_it_comes(before):
    meter = StreamMeter(drop_usage=True)
    endless = b"x" * (1 << 20)
    assert meter.feed(before + endless) == (0, b"")
    assert meter.feed(b"y") == (0, endless + b"y")


def test_usage_beside_choices_is_never_dropped():
    event = sse(chat("a") | {"usage": USAGE["usage"]})
    meter = StreamMeter(drop_usage=True)
    assert meter.feed(event) == (1, event)
    assert meter.usage


def test_each_choice_with_output_counts():
    choices = [{"index": i, "delta": {"content": text}} for i, text in enumerate(["a", "", "b"])]
    assert StreamMeter().feed(sse({"choices": choices}))[0] == 2


@pytest.mark.parametrize(
    ("event", "done"),
    [
        (sse({"error": {"message": "out of memory"}, "choices": None}), False),
        (named("error", message="out of memory"), True),
        (named("response.failed", response=response("failed", error={"code": "server_error"})), True),
    ],
)
def test_an_error_event_is_noticed(event, done):
    meter = StreamMeter()
    meter.feed(event)
    assert (meter.failed, meter.done) == (True, done)


@pytest.mark.parametrize("payload", [b'{"choices": 3}', b"\xff", b'{"type": "\xff"}', b"[" * 100_000])
def test_an_event_that_does_not_parse_passes_and_counts_nothing(payload):
    event = b"data: " + payload + b"\n\n"
    assert StreamMeter(drop_usage=True).feed(event) == (0, event)


@pytest.mark.parametrize(
    ("answer", "usage", "truncated"),
    [
        ({**USAGE, "choices": [{"finish_reason": "length"}]}, Usage(3, 4), True),
        ({**USAGE, "choices": [{"finish_reason": "stop", "message": {"content": "x"}}]}, Usage(3, 4), False),
        (response("completed", {"input_tokens": 5, "output_tokens": 6}), Usage(5, 6), False),
        (response("incomplete", {"input_tokens": 5, "output_tokens": 6}), Usage(5, 6), True),
        ({"usage": {"prompt_tokens": 5, "completion_tokens": None}}, Usage(5, 0), False),
    ],
)
def test_a_whole_answer_tells_its_usage_and_whether_it_was_cut(answer, usage, truncated):
    assert read_answer(json.dumps(answer).encode()) == (usage, truncated)


def test_a_whole_answer_passes_in_pieces_and_is_read_at_its_end():
    meter = meter_for(200, JSON)
    raw = json.dumps(USAGE).encode()
    assert [meter.feed(raw[:7]), meter.feed(raw[7:]), meter.close()] == [(0, raw[:7]), (0, raw[7:]), b""]
    assert meter.usage == Usage(3, 4)


def test_a_whole_answer_too_large_to_keep_passes_unread():
    meter = WholeMeter()
    piece = b" " * (1 << 20)
    assert all(meter.feed(piece) == (0, piece) for _ in range(33))
    meter.feed(json.dumps(USAGE).encode())
    meter.close()
    assert meter.usage is None


@pytest.mark.parametrize(("status", "kind"), [(400, JSON), (500, SSE), (200, "text/plain"), (200, "audio/wav")])
def test_what_is_no_answer_is_not_read(status, kind):
    assert meter_for(status, kind) is None


def test_what_is_no_json_has_no_usage():
    assert read_answer(b"<html>") == (None, False)
