"""What a caller asks for, against what the pool grants."""

from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tempo_api import wire
from tempo_api.intake import resolve
from tempo_api.manifest import build_pool, load_manifests
from tempo_api.openai import APIError, Ending
from tempo_core.gain import Outcome
from tempo_core.programs import Programs

POOL = build_pool(
    load_manifests("""
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {name: chat}
spec: {pattern: Latency, objectives: {ttft: 2s, tbt: 100ms}, default: true}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {name: tool}
spec: {pattern: Deadline, objectives: {ttlt: 20s}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {name: agent}
spec: {pattern: Collective, objectives: {perStage: 10s}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {name: research}
spec: {pattern: Collective, objectives: {endToEnd: 60s}}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: SLOClass
metadata: {name: batch}
spec: {pattern: BestEffort}
---
apiVersion: serving.tempo.dev/v1alpha1
kind: TempoPool
metadata: {name: test}
spec:
  model: m
  router: {serviceTiers: {flex: batch, priority: tool}}
""")
)


def resolved(headers=None, body=None, programs=None, now_s=0.0):
    return resolve(headers or {}, body or {}, POOL, Programs() if programs is None else programs, now_s)


def refusal(headers, body=None):
    programs = Programs()
    with pytest.raises(APIError) as caught:
        resolve(headers, body or {}, POOL, programs, 0.0)
    assert caught.value.ending is Ending.INVALID_VALUE
    assert len(programs) == 0
    return caught.value


def ended(tokens=5):
    return Outcome("agent", 5, tokens, nan, nan, nan, 0.0, attained=True)


@pytest.mark.parametrize(
    ("headers", "body", "name"),
    [
        ({}, {}, "chat"),
        ({"x-tempo-slo-class": "tool"}, {}, "tool"),
        ({"x-llm-d-inference-objective": "tool"}, {}, "tool"),
        ({"x-gateway-inference-objective": "batch"}, {}, "batch"),
        ({"x-tempo-slo-class": "batch", "x-llm-d-inference-objective": "tool"}, {"service_tier": "priority"}, "batch"),
        ({"x-llm-d-inference-objective": "tool", "x-gateway-inference-objective": "batch"}, {}, "tool"),
        ({"x-llm-d-inference-objective": "gold"}, {}, "chat"),
        ({"x-llm-d-inference-objective": "gold"}, {"service_tier": "flex"}, "batch"),
        ({}, {"service_tier": "flex"}, "batch"),
        ({}, {"service_tier": "auto"}, "chat"),
        ({}, {"service_tier": None}, "chat"),
        ({"x-tempo-slo-class": ""}, {}, "chat"),
    ],
)
def test_the_class_comes_from_our_header_then_a_gateway_s_then_the_service_tier_then_the_default(headers, body, name):
    result = resolved(headers, body)
    assert (result.slo.name, result.intake.slo_class) == (name, name)


def test_an_unknown_class_in_our_own_header_is_refused_with_a_near_name_and_the_list():
    error = refusal({"x-tempo-slo-class": "chatt"})
    assert error.param == "x-tempo-slo-class"
    assert "Did you mean chat?" in error.message
    assert "chat, tool, agent, research, batch" in error.message


@pytest.mark.parametrize(
    ("headers", "ttft_s", "tbt_s", "clamped"),
    [
        ({}, None, None, ()),
        ({"x-llm-d-slo-ttft-ms": "3000"}, 3.0, None, ()),
        ({"x-slo-ttft-ms": "3000", "x-slo-tpot-ms": "250.5"}, 3.0, 0.2505, ()),
        ({"x-llm-d-slo-ttft-ms": "500", "x-llm-d-slo-tpot-ms": "200"}, None, 0.2, ("ttft",)),
        ({"x-slo-ttft-ms": "1", "x-slo-tpot-ms": "1"}, None, None, ("ttft", "tbt")),
        ({"x-slo-ttft-ms": "2000"}, None, None, ()),
        ({"x-llm-d-slo-ttft-ms": "4000", "x-slo-ttft-ms": "3000"}, 4.0, None, ()),
        ({"x-tempo-deadline-ms": "5"}, None, None, ()),
    ],
)
def test_a_chat_may_ask_for_looser_targets_and_tighter_ones_fall_back_to_the_class(headers, ttft_s, tbt_s, clamped):
    result = resolved(headers)
    assert (result.intake.ttft_s, result.intake.tbt_s, result.intake.deadline_s) == (ttft_s, tbt_s, None)
    assert result.clamped == clamped
    assert result.slo.objectives.ttft_s == (ttft_s or 2.0)
    assert result.slo.objectives.tbt_s == (tbt_s or 0.1)


@pytest.mark.parametrize(
    ("asked_ms", "granted_s", "clamped"),
    [(None, 20.0, ()), ("45000", 45.0, ()), ("20000", 20.0, ()), ("100", 20.0, ("deadline",))],
)
def test_a_deadline_may_be_looser_than_its_class_never_tighter(asked_ms, granted_s, clamped):
    headers = {"x-tempo-slo-class": "tool"} | ({"x-tempo-deadline-ms": asked_ms} if asked_ms else {})
    result = resolved(headers)
    assert (result.intake.deadline_s, result.slo.deadline_s(), result.clamped) == (granted_s, granted_s, clamped)
    assert result.intake.ttft_s is None


NUMERIC = (*wire.TTFT_HEADERS, *wire.TBT_HEADERS, wire.DEADLINE_HEADER, wire.PROGRAM_DEADLINE_HEADER)


@pytest.mark.parametrize("value", ["0", "-1", "-0.0", "nan", "inf", "-inf", "1e999", "soon", "10ms", "0x10", "1,5"])
@pytest.mark.parametrize("name", NUMERIC)
def test_a_target_that_is_no_positive_number_is_refused_by_name_and_never_clamped(name, value):
    assert refusal({name: value}).param == name


@pytest.mark.parametrize("value", ["-1", "1.5", "one", "10000", "²", "9" * 200])
def test_a_stage_that_is_no_small_whole_number_is_refused(value):
    assert refusal({"x-tempo-slo-class": "agent", "x-tempo-stage": value}).param == "x-tempo-stage"


def test_a_final_mark_that_is_neither_true_nor_false_is_refused():
    assert refusal({"x-tempo-program-final": "perhaps"}).param == "x-tempo-program-final"


@pytest.mark.parametrize("value", ["x" * 257, "a\x00b", "a\udc80b"])
def test_a_value_that_is_long_or_not_printable_is_refused(value):
    name = "x-tempo-program-id"
    assert refusal({name: value}).param == name


def test_the_tenant_is_the_gateway_s_then_a_digest_of_the_key_then_of_the_user():
    gateway, key = {"x-gateway-inference-fairness-id": "acme"}, {"authorization": "Bearer sk-1"}
    body = {"user": "ann"}
    assert resolved(gateway | key, body).intake.tenant == "acme"
    by_key, by_user = resolved(key, body).intake.tenant, resolved({}, body).intake.tenant
    assert len({by_key, by_user, resolved({"authorization": "bearer sk-2"}).intake.tenant}) == 3
    assert by_key == resolved(key).intake.tenant
    assert by_user == resolved({}, {"safety_identifier": "ann"}).intake.tenant
    assert "sk-1" not in by_key
    assert resolved().intake.tenant == ""
    assert resolved({"authorization": "Basic abc"}).intake.tenant == ""


def test_calls_of_one_program_get_stages_and_cumulative_sub_deadlines_from_their_own_arrival():
    programs, headers = Programs(), {"x-tempo-slo-class": "agent", "x-tempo-program-id": "p"}
    first = resolved(headers, programs=programs, now_s=100.0)
    programs.end(first.call, ended(), 104.0)
    second = resolved(headers, programs=programs, now_s=105.0)
    assert (first.intake.program, first.intake.stage, first.intake.deadline_s) == ("p", 0, 10.0)
    assert (second.intake.stage, second.intake.deadline_s, second.intake.program_elapsed_s) == (1, 15.0, 5.0)
    assert second.intake.banked_gain == 5 + 2 * 5


def test_a_call_of_a_program_that_is_late_already_has_a_sub_deadline_in_the_past():
    programs, headers = Programs(), {"x-tempo-slo-class": "research", "x-tempo-program-id": "p"}
    programs.end(resolved(headers, programs=programs).call, ended(), 1.0)
    assert resolved(headers, programs=programs, now_s=70.0).intake.deadline_s == -10.0


@pytest.mark.parametrize("name", wire.SESSION_HEADERS)
def test_an_agent_s_session_header_names_the_program(name):
    result = resolved({"x-tempo-slo-class": "agent", name: "session-7"})
    assert result.intake.program == "session-7"


def test_our_program_header_comes_before_a_session_header():
    headers = {"x-tempo-slo-class": "agent", "x-session-id": "s", "x-tempo-program-id": "p"}
    assert resolved(headers).intake.program == "p"


@pytest.mark.parametrize("slo_class", ["chat", "tool", "batch"])
def test_a_program_id_on_another_pattern_is_not_scheduled_by(slo_class):
    programs = Programs()
    result = resolved({"x-tempo-slo-class": slo_class, "x-tempo-program-id": "p"}, programs=programs)
    assert (result.call, result.intake.program, len(programs)) == (None, None, 0)


def test_a_collective_call_without_a_program_is_a_program_of_its_own():
    programs, headers = Programs(), {"x-tempo-slo-class": "agent"}
    first, second = (resolved(headers, programs=programs) for _ in range(2))
    assert first.intake.program != second.intake.program
    assert programs.end(first.call, ended(), 1.0).attained
    assert len(programs) == 1


def test_a_given_stage_and_a_final_mark_are_taken():
    programs = Programs()
    headers = {"x-tempo-slo-class": "agent", "x-tempo-program-id": "p", "x-tempo-stage": "3"}
    result = resolved(headers | {"x-tempo-program-final": "True"}, programs=programs)
    assert (result.intake.stage, result.intake.deadline_s) == (3, 40.0)
    assert programs.end(result.call, ended(), 1.0) is not None


@pytest.mark.parametrize(
    ("slo_class", "asked_ms", "granted_s", "clamped"),
    [
        ("agent", "45000", 45.0, ()),
        ("agent", "5000", 10.0, ("program_deadline",)),
        ("research", "90000", 90.0, ()),
        ("research", "60000", 60.0, ()),
        ("research", "59000", 60.0, ("program_deadline",)),
    ],
)
def test_a_program_s_deadline_may_be_looser_than_its_class_never_tighter(slo_class, asked_ms, granted_s, clamped):
    result = resolved({"x-tempo-slo-class": slo_class, "x-tempo-program-deadline-ms": asked_ms})
    assert (result.intake.deadline_s, result.clamped) == (granted_s, clamped)


NAMES = (
    *wire.CLASS_HEADERS, *NUMERIC, *wire.TENANT_HEADERS, wire.PROGRAM_HEADER, *wire.SESSION_HEADERS,
    wire.STAGE_HEADER, wire.FINAL_HEADER, "authorization",
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from([*POOL.classes, "1", "0", "1e5", "-1", "nan", "true", "Bearer k"]),
    st.integers().map(str),
    st.floats().map(str),
    st.text(st.characters(exclude_categories=())),
)
BODIES = st.fixed_dictionaries({}, optional={"user": st.text(), "service_tier": st.sampled_from(["flex", "x", None])})


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.tuples(st.dictionaries(st.sampled_from(NAMES), VALUES), BODIES), max_size=4))
def test_whatever_the_headers_say_is_resolved_or_refused_and_nothing_tighter_than_the_class_is_granted(requests):
    programs = Programs()
    for now_s, (headers, body) in enumerate(requests):
        try:
            result = resolve(headers, body, POOL, programs, float(now_s))
        except APIError:
            continue
        assert wire.decode_intake(wire.encode_intake(result.intake)) == result.intake
        own = POOL.classes[result.slo.name].objectives
        assert result.slo.objectives.ttft_s >= own.ttft_s
        assert result.slo.objectives.tbt_s >= own.tbt_s
        assert (result.intake.deadline_s or inf) >= (own.ttlt_s if result.slo.name == "tool" else -inf)
