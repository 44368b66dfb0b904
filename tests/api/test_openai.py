import itertools
import json

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_api.openai import APIError, Ending, StreamMeter, error_body, error_event, output_cap, parse_body, read_answer

DONE = b"data: [DONE]\n\n"


def sse(data, end="\n\n"):
    return f"data: {json.dumps(data)}{end}".encode()


def chat(content=None, finish=None, **delta):
    delta |= {} if content is None else {"content": content}
    return {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}
STREAM = (
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


def feed_in_pieces(meter, data, cuts):
    bounds = [0, *sorted(cuts), len(data)]
    fed = [meter.feed(data[a:b]) for a, b in itertools.pairwise(bounds)]
    return sum(f.tokens for f in fed), b"".join(f.passed for f in fed) + meter.close()


@given(st.lists(st.integers(0, len(STREAM)), max_size=12), st.booleans())
def test_a_stream_counts_the_same_however_the_network_cuts_it(cuts, drop_usage):
    meter = StreamMeter(drop_usage=drop_usage)
    tokens, passed = feed_in_pieces(meter, STREAM, cuts)
    assert tokens == 4
    assert passed == (STREAM.replace(sse(USAGE), b"") if drop_usage else STREAM)
    assert meter.usage
    assert (meter.usage.prompt_tokens, meter.usage.completion_tokens) == (3, 4)
    assert meter.done
    assert meter.truncated
    assert not meter.failed


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


def test_an_event_that_never_ends_is_passed_on_as_it_comes():
    meter = StreamMeter()
    endless = b"x" * (1 << 20)
    assert meter.feed(endless).passed == b""
    assert meter.feed(b"y").passed == endless + b"y"


def test_usage_beside_choices_is_never_dropped():
    event = sse(chat("a") | {"usage": USAGE["usage"]})
    meter = StreamMeter(drop_usage=True)
    assert meter.feed(event) == (1, event)
    assert meter.usage


def test_each_choice_with_output_counts():
    choices = [{"index": i, "delta": {"content": text}} for i, text in enumerate(["a", "", "b"])]
    assert StreamMeter().feed(sse({"choices": choices})).tokens == 2


def test_an_error_event_is_noticed():
    meter = StreamMeter()
    meter.feed(sse({"error": {"message": "out of memory"}}))
    assert meter.failed


def test_a_whole_answer_tells_its_usage_and_whether_it_was_cut():
    usage, truncated = read_answer(json.dumps({**USAGE, "choices": [{"finish_reason": "length"}]}).encode())
    assert usage
    assert usage.completion_tokens == 4
    assert truncated
    assert read_answer(b"<html>") == (None, False)


def test_every_ending_has_a_name_of_its_own_and_llm_ds_word_where_it_drops():
    assert len({ending.value for ending in Ending}) == len(Ending)
    assert {ending.dropped for ending in Ending} - {None} == {
        "rejected-saturated",
        "rejected-no-endpoints",
        "rejected-ttl-expired",
        "rejected-context-cancelled",
        "rejected-shutting-down",
        "evicted",
    }


def test_an_error_has_openais_shape():
    error = APIError(Ending.INVALID_VALUE, "'n' must be an integer.", param="n")
    assert json.loads(error_body(error)) == {
        "error": {
            "message": "'n' must be an integer.",
            "type": "invalid_request_error",
            "param": "n",
            "code": "invalid_value",
        }
    }


@pytest.mark.parametrize(("seconds", "header"), [(0.2, "1"), (1.2, "2"), (7.0, "7")])
def test_retry_after_is_whole_seconds_and_never_zero(seconds, header):
    assert APIError(Ending.SATURATED, "full", retry_after_s=seconds).headers == {"Retry-After": header}


def test_openais_client_raises_on_a_stream_that_ends_in_an_error_event():
    body = sse(chat("a")) + error_event(APIError(Ending.UPSTREAM_FAILED, "The engine broke off."))
    answer = httpx.Response(200, content=body, headers={"content-type": "text/event-stream"})
    with (
        httpx.Client(transport=httpx.MockTransport(lambda _: answer)) as http,
        openai.OpenAI(api_key="x", base_url="http://tempo.test/v1", http_client=http) as client,
    ):
        stream = client.chat.completions.create(model="m", messages=[], stream=True)
        assert next(stream).choices[0].delta.content == "a"
        with pytest.raises(openai.APIError, match="The engine broke off") as caught:
            next(stream)
    assert caught.value.code == "upstream_failed"


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b'"text"', b"\xff", b'{"a": NaN}'])
def test_what_is_no_json_object_is_refused(raw):
    with pytest.raises(APIError) as caught:
        parse_body(raw)
    assert caught.value.ending is Ending.BAD_JSON


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 1),
        ("stream", "yes"),
        ("max_tokens", "9"),
        ("max_tokens", 1.5),
        ("max_completion_tokens", True),
        ("n", []),
        ("user", {}),
        ("service_tier", 1),
        ("stream_options", []),
        ("vllm_xargs", "x"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused_by_name(field, value):
    with pytest.raises(APIError, match=f"'{field}' must be") as caught:
        parse_body(json.dumps({field: value}).encode())
    assert (caught.value.ending, caught.value.param) == (Ending.INVALID_VALUE, field)


def test_null_fields_and_unknown_ones_are_the_engines_business():
    body = {"model": None, "stream": None, "max_tokens": None, "top_k": "?"}
    assert parse_body(json.dumps(body).encode()) == body


@pytest.mark.parametrize(
    ("body", "cap"),
    [({}, None), ({"max_tokens": 5}, 5), ({"max_completion_tokens": 0, "max_tokens": 5}, 0)],
)
def test_the_newer_name_of_the_output_cap_comes_first(body, cap):
    assert output_cap(body) == cap
