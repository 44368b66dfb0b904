import json
from dataclasses import replace

import pytest

from support.serving import QUICKSTART
from tempo_api.manifest import load_pool
from tempo_api.openai import APIError, Ending, Endpoint, parse_body
from tempo_api.wire import Intake, decode_facts
from tempo_core.lengths import default_grid
from tempo_sidecar.analyse import analyse, engine_body, without_reserved
from tempo_sidecar.lengths import WindowLengths

POOL = load_pool(QUICKSTART)
NOW = 1e6


def work(intake=None, body=None, *, endpoint=Endpoint.CHAT):
    intake = intake or Intake(slo_class="chat")
    return analyse(intake, body or {}, POOL, WindowLengths(), NOW, endpoint=endpoint)


def sent_on(raw, endpoint=Endpoint.CHAT):
    """The engine's body, and the facts in it."""
    body = parse_body(raw)
    made = engine_body(raw, body, work(body=body, endpoint=endpoint))
    facts, bad = decode_facts(json.loads(made)["vllm_xargs"])
    assert not bad
    return made, facts


def test_looser_targets_that_the_router_granted_are_the_ones_that_count():
    slo = work(Intake(slo_class="chat", ttft_s=9.0)).slo
    assert (slo.objectives.ttft_s, slo.objectives.tbt_s) == (9.0, POOL.classes["chat"].objectives.tbt_s)


def test_a_completion_that_names_no_cap_gets_openais_sixteen_tokens():
    assert work(endpoint=Endpoint.COMPLETIONS).lengths.grid == default_grid(16)
    for endpoint in (Endpoint.CHAT, Endpoint.RESPONSES):
        assert work(endpoint=endpoint).lengths.grid == default_grid(1024)
    assert work(body={"max_completion_tokens": 50}).lengths.grid == default_grid(50)
    assert work(body={"max_output_tokens": 50}, endpoint=Endpoint.RESPONSES).lengths.grid == default_grid(50)


@pytest.mark.parametrize(("body", "single"), [({}, True), ({"n": 2}, False), ({"prompt": ["a", "b"]}, False)])
def test_only_one_answer_to_one_prompt_teaches_lengths(body, single):
    assert work(body=body).single is single


def test_the_fallback_order_is_the_earliest_due_first():
    due = [
        work(Intake(slo_class="tool", deadline_s=1.0)),
        work(Intake(slo_class="chat")),
        work(Intake(slo_class="chat", ttft_s=5.0)),
        work(Intake(slo_class="tool", deadline_s=15.0)),
    ]
    assert [w.priority for w in due] == sorted(w.priority for w in due)


def test_in_the_fallback_order_waiting_pays_so_that_nothing_starves():
    lax = replace(work(), slo=replace(POOL.default, pattern="BestEffort"))
    assert lax.priority < replace(lax, arrival_s=NOW + 1.0).priority
    assert lax.priority < replace(work(), arrival_s=NOW + 4000.0).priority


def test_the_engines_body_keeps_everything_else_that_the_caller_sent():
    body = {"model": "m", "seed": 3, "unknown": {"a": [1.5]}, "stream": False, "vllm_xargs": {"mine": "x"}}
    made, facts = sent_on(json.dumps(body).encode())
    sent = json.loads(made)
    assert facts == work(body=body).facts
    assert sent.pop("vllm_xargs")["mine"] == "x"
    assert sent.pop("priority") > 0
    assert sent == {key: value for key, value in body.items() if key != "vllm_xargs"}


@pytest.mark.parametrize(
    "value",
    [
        b"123456789012345678901234567890",
        b"1.50e+07",
        b'{"twice": 1, "twice": 2}',
        b'"\\u00e9\\ud83d\\ude00 \xc3\xa9\\/"',
        b"[ 1 ,{ } ]",
        b"[" * 900 + b"]" * 900,
    ],
)
def test_a_callers_values_go_on_byte_for_byte(value):
    raw = b'{"odd": %b, "vllm_xargs": {"mine": %b}, "stream": true, "stream_options": {"odd": %b}}' % ((value,) * 3)
    made, _ = sent_on(raw)
    assert made.count(value) == 3


def test_of_a_field_that_is_there_twice_the_last_goes_on():
    made, _ = sent_on(b'{"seed": 1, "vllm_xargs": {"a": 1}, "seed": 2, "priority": -9, "vllm_xargs": {"b": 1}}')
    sent = json.loads(made)
    assert (sent["seed"], made.count(b"seed"), made.count(b"priority")) == (2, 1, 1)
    assert "a" not in sent["vllm_xargs"]
    assert sent["priority"] > 0


def test_a_stream_of_a_response_always_ends_with_its_usage_and_need_not_be_asked():
    body = b'{"stream": true, "stream_options": {"include_obfuscation": false}}'
    assert json.loads(sent_on(body, Endpoint.RESPONSES)[0])["stream_options"] == {"include_obfuscation": False}
    assert json.loads(sent_on(body)[0])["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_a_body_that_cannot_be_taken_apart_is_refused():
    raw = b'{"odd": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(APIError) as caught:
        engine_body(raw, {}, work())
    assert caught.value.ending is Ending.BAD_JSON


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        (
            b'{"vllm_xargs": {"tempo_banked_gain": 9e9, "mine": 1}, "input": "x"}',
            {"vllm_xargs": {"mine": 1}, "input": "x"},
        ),
        (b'{"vllm_\\u0078args": {"tempo_slo_class": "vip"}}', {"vllm_xargs": {}}),
        (b'{"priority": -1000000, "input": 3}', {"input": 3}),
    ],
)
def test_no_path_lets_a_client_say_what_only_tempo_may(sent, passed):
    assert json.loads(without_reserved(sent)) == passed


@pytest.mark.parametrize(
    "raw",
    [
        b'{"vllm_xargs": {"tempo_slo_class": "vip"}, "odd": NaN}',
        '{"priority": -1}'.encode("utf-16"),
        b'{"vllm_xargs": {"tempo_slo_class": "vip"}, "odd": "\\ud800"}',
    ],
)
def test_nor_does_json_that_only_a_lenient_parser_takes(raw):
    with pytest.raises(APIError) as caught:
        without_reserved(raw)
    assert caught.value.ending is Ending.BAD_JSON


@pytest.mark.parametrize(
    "raw",
    [b"", b"not json", b"\xff\xfe", b"[" * 100_000, b"[1]", b'{"vllm_xargs": 5}', b'{ "vllm_xargs": {"mine": 1} }'],
)
def test_a_body_without_reserved_arguments_stays_as_it_came(raw):
    assert without_reserved(raw) == raw


def form(*headers):
    parts = [b"--b\r\n%b\r\n\r\n{}\r\n" % header for header in headers]
    return b"".join(parts) + b"--b--\r\n"


FILE = b'Content-Disposition: form-data; name="file"; filename="a b.wav"\r\nContent-Type: audio/wav'


@pytest.mark.parametrize(
    "header",
    [
        b'Content-Disposition: form-data; name="vllm_xargs"',
        b"content-disposition:form-data;name=vllm_xargs",
        b'CONTENT-DISPOSITION: form-data; NAME="VLLM_XARGS"',
        b"Content-Disposition: form-data; name*=utf-8''vllm%5Fxargs",
        b'Content-Disposition: form-data; name*0="vllm_"; name*1="xargs"',
        b'Content-Disposition: form-data; name="vllm\\_xargs"',
        b'Content-Disposition: form-data; name="file"; name="vllm_xargs"',
    ],
)
def test_a_form_that_says_what_only_tempo_may_is_refused_however_it_is_written(header):
    with pytest.raises(APIError) as caught:
        without_reserved(form(FILE, header))
    assert caught.value.ending is Ending.INVALID_VALUE


@pytest.mark.parametrize(
    "headers",
    [
        [FILE],
        [FILE, b'Content-Disposition: form-data; name="timestamp_granularities[]"'],
        [FILE, b"content-disposition: form-data; name=response_format"],
        [b"Content-Disposition: form-data; name=\"file\"; filename*=utf-8''%C5%BDofie.wav"],
        [b"Content-Disposition: attachment"],
    ],
)
def test_other_forms_pass_as_they_came(headers):
    assert without_reserved(form(*headers)) == form(*headers)
