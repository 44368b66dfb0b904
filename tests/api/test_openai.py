import json

import httpx
import openai
import pytest

from tempo_api.openai import APIError, Ending, error_body, error_event, output_cap, parse_body


def test_every_ending_has_a_name_of_its_own_and_llm_ds_word_where_it_drops():
    assert len({ending.value for ending in Ending}) == len(Ending)
    assert {ending.dropped for ending in Ending} - {None} == {
        "rejected-saturated",
        "rejected-no-endpoints",
        "rejected-ttl-expired",
        "rejected-context-cancelled",
        "rejected-shutting-down",
        "evicted-queue-pressure",
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


FIRST = b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'


def test_openais_client_raises_on_a_stream_that_ends_in_an_error_event():
    body = FIRST + error_event(APIError(Ending.UPSTREAM_FAILED, "The engine broke off."))
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
        ("max_tokens", 1e300),
        ("max_completion_tokens", True),
        ("max_output_tokens", "9"),
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


def test_an_integer_may_be_written_as_a_float():
    assert (
        repr(parse_body(b'{"max_tokens": 2048.0, "n": 1e0, "seed": 1.0}'))
        == "{'max_tokens': 2048, 'n': 1, 'seed': 1.0}"
    )


@pytest.mark.parametrize("value", [b"1e400", b'"\\ud800"', b"[" * 1100 + b"]" * 1100])
def test_what_python_cannot_hold_is_refused(value):
    with pytest.raises(APIError) as caught:
        parse_body(b'{"odd": %b}' % value)
    assert caught.value.ending is Ending.BAD_JSON


def test_of_a_field_that_is_there_twice_the_last_counts():
    assert parse_body(b'{"model": 1, "model": "m"}') == {"model": "m"}


@pytest.mark.parametrize(
    ("body", "cap"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_output_tokens": 5}, 5),
        ({"max_completion_tokens": 0, "max_tokens": 5}, 0),
    ],
)
def test_the_newer_name_of_the_output_cap_comes_first(body, cap):
    assert output_cap(body) == cap
