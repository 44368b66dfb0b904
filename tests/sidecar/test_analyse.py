import json
from dataclasses import replace

import pytest

from support.serving import QUICKSTART
from tempo_api.manifest import load_pool
from tempo_api.wire import Intake, decode_facts
from tempo_core.lengths import default_grid
from tempo_sidecar.analyse import analyse, engine_body, prompt_estimate, without_reserved
from tempo_sidecar.lengths import WindowLengths

POOL = load_pool(QUICKSTART)
NOW = 1e6


def work(intake=None, body=None, *, chat=True):
    intake = intake or Intake(slo_class="chat")
    return analyse(intake, body or {}, POOL, WindowLengths(), NOW, chat=chat)


@pytest.mark.parametrize(
    ("body", "tokens", "prompts"),
    [
        ({}, 1, 1),
        ({"prompt": "x" * 40}, 11, 1),
        ({"prompt": ["x" * 40, "y" * 40]}, 22, 2),
        ({"prompt": [1, 2, 3]}, 3, 1),
        ({"prompt": [[1, 2, 3], [4]]}, 4, 2),
        ({"messages": [{"role": "user", "content": "x" * 20}, {"role": "user", "content": "y" * 20}]}, 11, 1),
        ({"messages": [{"content": [{"type": "text", "text": "x" * 40}, {"type": "image_url"}]}]}, 11, 1),
        ({"messages": "nonsense", "prompt": {"a": 1}}, 3, 1),
        ({"messages": [None, 3, {"content": None}]}, 1, 1),
    ],
)
def test_prompts_are_measured_in_whatever_form_they_come(body, tokens, prompts):
    assert prompt_estimate(body) == (tokens, prompts)


def test_a_prompt_nested_without_end_is_only_a_bad_guess():
    assert prompt_estimate(json.loads('{"messages": ' + "[" * 900 + "]" * 900 + "}")) == (1, 1)
    nested = {}
    for _ in range(900):
        nested = {"content": nested}
    assert prompt_estimate({"messages": [nested]}) == (1, 1)


def test_looser_targets_that_the_router_granted_are_the_ones_that_count():
    slo = work(Intake(slo_class="chat", ttft_s=9.0)).slo
    assert (slo.objectives.ttft_s, slo.objectives.tbt_s) == (9.0, POOL.classes["chat"].objectives.tbt_s)


def test_a_completion_that_names_no_cap_gets_openais_sixteen_tokens():
    assert work(chat=False).lengths.grid == default_grid(16)
    assert work(chat=True).lengths.grid == default_grid(1024)
    assert work(body={"max_completion_tokens": 50}).lengths.grid == default_grid(50)


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
    sent = json.loads(engine_body(body, work(body=body)))
    facts, bad = decode_facts(sent["vllm_xargs"])
    assert (bad, facts) == ([], work(body=body).facts)
    assert sent.pop("vllm_xargs")["mine"] == "x"
    assert sent.pop("priority") > 0
    assert sent == {key: value for key, value in body.items() if key != "vllm_xargs"}


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        (
            b'{"vllm_xargs": {"tempo_banked_gain": 9e9, "mine": 1}, "input": "x"}',
            {"vllm_xargs": {"mine": 1}, "input": "x"},
        ),
        (b'{"vllm_\\u0078args": {"tempo_slo_class": "vip"}}', {"vllm_xargs": {}}),
    ],
)
def test_no_path_lets_a_client_say_what_only_tempo_may(sent, passed):
    assert json.loads(without_reserved(sent)) == passed


@pytest.mark.parametrize("raw", [b"", b"not json", b"[1]", b'{"vllm_xargs": 5}', b'{ "vllm_xargs": {"mine": 1} }'])
def test_a_body_without_reserved_arguments_stays_as_it_came(raw):
    assert without_reserved(raw) == raw
