"""The forms in which a request's facts travel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo_api.wire import Facts, Intake, decode_facts, decode_intake, encode_facts, encode_intake, strip_reserved

names = st.text(min_size=1, max_size=40)
seconds = st.floats(0, 1e10)


@given(
    st.builds(
        Intake,
        slo_class=names,
        elapsed_s=seconds,
        ttft_s=st.none() | seconds,
        deadline_s=st.none() | st.floats(-1e6, 1e6),
        program=st.none() | names,
        stage=st.integers(0, 99),
        banked_gain=seconds,
        tenant=st.text(max_size=40),
    )
)
def test_an_intake_survives_its_header(intake: Intake) -> None:
    header = encode_intake(intake)
    assert header.isascii()
    assert header.isprintable()
    assert decode_intake(header) == intake


@pytest.mark.parametrize("value", ["", "{}", "[]", '{"slo_class": 1}', '{"slo_class": "a", "more": 1}', "x"])
def test_anything_else_in_that_header_is_refused(value: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # msgspec's errors are ValueErrors of its own
        decode_intake(value)


@given(
    st.builds(
        Facts,
        slo_class=st.none() | names,
        arrival_s=st.none() | seconds,
        deadline_s=st.none() | seconds,
        lengths=st.none() | st.lists(st.floats(1, 1e5), min_size=7, max_size=7).map(lambda v: tuple(sorted(v))),
        program=st.none() | names,
        banked_gain=st.none() | seconds,
    )
)
def test_facts_survive_the_engines_extra_arguments(facts: Facts) -> None:
    assert decode_facts(encode_facts(facts)) == (facts, [])


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300)


@given(st.dictionaries(st.text(max_size=20).map("tempo_".__add__), scalars | st.lists(scalars, max_size=8)))
def test_malformed_facts_are_named_and_never_raise(xargs: dict) -> None:
    facts, bad = decode_facts(xargs)
    known = {f"tempo_{name}" for name in Facts.__dataclass_fields__}
    assert {f"tempo_{name}" for name in bad} >= xargs.keys() - known
    assert isinstance(facts, Facts)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tempo_deadline_s", "soon"),
        ("tempo_deadline_s", float("nan")),
        ("tempo_ttft_s", -1),
        ("tempo_ttft_s", True),
        ("tempo_slo_class", ""),
        ("tempo_slo_class", "x" * 1000),
        ("tempo_lengths", [1, 2]),
        ("tempo_lengths", [7, 6, 5, 4, 3, 2, 1]),
        ("tempo_surprise", 1),
    ],
)
def test_a_malformed_fact_is_left_out_and_the_others_stay(name: str, value: object) -> None:
    facts, bad = decode_facts({"tempo_program": "p", name: value, "other": 5})
    assert facts == Facts(program="p")
    assert bad == [name.removeprefix("tempo_")]


def test_clients_keep_their_own_extra_arguments_only() -> None:
    assert strip_reserved({"tempo_slo_class": "vip", "mine": 1}) == {"mine": 1}
