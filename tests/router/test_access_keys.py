"""Files of API keys: what they may hold, and what is said of those that can't be used."""

import hashlib
import logging
import os
from contextlib import ExitStack

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tempo_api.openai import APIError, Ending
from tempo_router.access import Gate, KeysError, Principal
from tempo_router.access.keys import LARGEST_FILE, MOST_KEYS, parse_keys

GOOD = """
keys:
  - name: team-a
    key: sk-aaaaaaaa
    classes: [chat, tool]
    maxConcurrentRequests: 2
    ceilings: {tool: 1}
  - {name: team-b, sha256: 35bf3aa38e6a5d0ae7d6ae56dd6dd7a73dbd9b0fd0d02b41e7a5cb6e2f4f17b7}
"""
SECRET = "sk-5ecre7-5ecre7"


def entry(**fields):
    return {"name": "a", "key": "sk-aaaaaaaa"} | fields


def text(*entries):
    return yaml.safe_dump({"keys": list(entries)}).encode()


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A file that examples may write one after another."""
    return tmp_path_factory.mktemp("keys") / "keys.yaml"


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    path.write_text(GOOD)
    return Gate(path)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "keys.yaml"
    path.write_text(GOOD)
    return path


def test_a_file_says_who_may_use_which_classes_and_how_much_at_once():
    first, second = parse_keys(GOOD.encode())
    assert (first.name, first.classes, first.max_concurrent_requests) == ("team-a", ("chat", "tool"), 2)
    assert first.ceilings == {"tool": 1}
    assert first.digest == hashlib.sha256(b"sk-aaaaaaaa").digest()
    assert (second.classes, second.max_concurrent_requests, second.ceilings) == (None, None, {})


def test_a_file_may_hold_no_key_and_then_nobody_gets_in(path):
    path.write_text("keys: []")
    with pytest.raises(APIError):
        Gate(path).admit(bearer("sk-aaaaaaaa"))


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "write a list `keys:` with a name and a key in each entry"),
        (b"- a", "write a list `keys:`"),
        (b"keys: 1", "keys: expected `array`, got `int`"),
        (b"keys: [1]", "keys[0]: expected `object`, got `int`"),
        (b"keys: [", "not YAML at line"),
        (b"\xff\xfe\xfa", "not YAML"),
        (b"keys: 2001-13-01", "not YAML that can be read"),
        (b"[" * 5000, "not YAML"),
        (b"#" * (LARGEST_FILE + 1), "is larger than"),
        (b"ksey: []", "unknown field; did you mean keys?"),
        (text(entry(clases=["chat"])), "keys[0]: unknown field; did you mean classes?"),
        (text(entry(), {"key": "sk-bbbbbbbb"}), "keys[1].name: is required"),
        (text(entry(name="a b")), "keys[0].name: must be 1 to 63 letters, digits, dashes"),
        (text(entry(key="short")), "keys[0].key: must be 8 to 512 visible ASCII characters"),
        (text(entry(key="with a blank")), "keys[0].key: must be 8 to 512 visible"),
        (text(entry(key=123456789)), "keys[0].key: must be 8 to 512 visible ASCII characters, in quotes"),
        (text(entry(key=None, sha256="beef")), "keys[0].sha256: must be the 64 hexadecimal digits that"),
        (text({"name": "a"}), "keys[0]: give key or sha256, one of them"),
        (text(entry(sha256="0" * 64)), "keys[0]: give key or sha256, one of them"),
        (text(entry(), entry(name="b")), "keys[1]: is the same key as keys[0]"),
        (
            text(entry(), {"name": "b", "sha256": hashlib.sha256(b"sk-aaaaaaaa").hexdigest().upper()}),
            "keys[1]: is the same key as keys[0]",
        ),
        (text(entry(classes=[])), "keys[0].classes: expected `array` of length >= 1"),
        (text(entry(classes=["chat", "chat"])), "keys[0].classes: has a class twice"),
        (text(entry(classes=["Chat!"])), "keys[0].classes[0]: expected `str` matching"),
        (text(entry(maxConcurrentRequests=0)), "keys[0].maxConcurrentRequests: expected `int` >= 1"),
        (
            text(entry(classes=["chat"], ceilings={"tool": 1})),
            "keys[0].ceilings: tool is none of the key's classes, chat",
        ),
        (text(entry(ceilings={"chat": "many"})), "keys[0].ceilings[...]: expected `int`, got `str`"),
        (
            text(*(entry(key=f"sk-{n:08}") for n in range(MOST_KEYS + 1))),
            f"keys: expected `array` of length <= {MOST_KEYS}",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_can_t_be_used_is_one_line_that_names_the_field_and_the_remedy(raw, problem):
    with pytest.raises(KeysError) as caught:
        parse_keys(raw)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def parsed_or_refused(raw):
    """Whether a file was taken; fails if anything but its own error comes of it, or that error tells a key."""
    try:
        parse_keys(raw)
    except KeysError as error:
        said = str(error)
        assert "\n" not in said
        assert SECRET not in said
        return False
    return True


@given(st.binary(max_size=200))
def test_bytes_that_mean_nothing_raise_nothing_but_their_own_error(raw):
    parsed_or_refused(raw)


@given(st.text(st.sampled_from("keysnam: -[]{}&*!|>'\"%@`#,?\n\t01_.~<=+" + "é\x00\x85"), max_size=60))
def test_text_that_looks_like_yaml_raises_nothing_but_its_own_error(raw):
    parsed_or_refused(raw.encode())


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.just(SECRET), st.dates()
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
)
FIELDS = st.sampled_from(["name", "key", "sha256", "classes", "maxConcurrentRequests", "ceilings", "odd", SECRET])


@given(st.lists(st.dictionaries(FIELDS, DOCUMENTS, max_size=6), max_size=3))
def test_entries_of_anything_raise_nothing_but_their_own_error_and_it_tells_no_key(entries):
    parsed_or_refused(text(*entries))


ENTRIES = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][-._A-Za-z0-9]{0,62}", fullmatch=True),
        "key": st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=64),
    },
    optional={
        "classes": st.lists(st.sampled_from(["chat", "tool", "batch"]), min_size=1, unique=True),
        "maxConcurrentRequests": st.integers(1, 10**6),
    },
)


@given(st.lists(ENTRIES, max_size=5, unique_by=lambda made: made["key"]), st.booleans())
def test_every_well_formed_key_is_found_by_its_holder_and_by_nobody_else(scratch, entries, hashed):
    for made in entries if hashed else ():
        made["sha256"] = hashlib.sha256(made["key"].encode()).hexdigest()
    scratch.write_bytes(text(*({k: v for k, v in made.items() if not hashed or k != "key"} for made in entries)))
    gate = Gate(scratch)
    for made in entries:
        grant = gate.admit(bearer(made["key"])).grant
        assert grant.tenant == made["name"]
        assert grant.classes == (tuple(made["classes"]) if "classes" in made else None)
        with pytest.raises(APIError):
            gate.admit(bearer(made["key"] + "x" * 513))


PRESENTED = st.one_of(
    st.sampled_from([{}, {"authorization": "Bearer"}, {"authorization": "Basic sk-aaaaaaaa"}, bearer("sk-aaaaaaa")]),
    st.text().map(lambda junk: {"authorization": junk}),
    st.text(st.characters()).map(bearer),
)


@given(PRESENTED)
def test_whatever_else_is_presented_is_refused_in_one_way(gate, headers):
    with pytest.raises(APIError) as caught:
        gate.admit(headers)
    assert caught.value.ending is Ending.UNAUTHORIZED
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}


def test_a_changed_file_takes_effect_and_what_is_in_flight_goes_on_counting(path):
    gate = Gate(path)
    old = gate.admit(bearer("sk-aaaaaaaa"))
    with old.hold():
        path.write_bytes(text({"name": "team-a", "key": "sk-rotated-1", "maxConcurrentRequests": 1}))
        gate.poll()
        with pytest.raises(APIError):
            gate.admit(bearer("sk-aaaaaaaa"))
        new = gate.admit(bearer("sk-rotated-1"))
        with pytest.raises(APIError, match="has 1 requests in flight; the key's ceiling is 1"):
            new.hold()
    new.hold()


def test_a_bad_change_is_logged_once_and_the_keys_known_go_on(path, caplog):
    gate = Gate(path)
    path.write_text(f"keys: [{{name: a, key: {SECRET}, odd: 1}}]")
    with caplog.at_level(logging.ERROR):
        gate.poll()
        gate.poll()
    [record] = caplog.records
    assert record.getMessage().endswith(
        "keys.yaml: keys[0]: unknown field; the fields are name, key, sha256, classes, "
        "maxConcurrentRequests, ceilings; going on with the 2 keys known"
    )
    assert SECRET not in caplog.text
    gate.admit(bearer("sk-aaaaaaaa"))


def test_a_file_that_vanishes_changes_nothing_until_it_is_back(path):
    gate = Gate(path)
    path.unlink()
    gate.poll()
    gate.admit(bearer("sk-aaaaaaaa"))
    path.write_text("keys: []")
    os.utime(path, ns=(1, 1))
    gate.poll()
    with pytest.raises(APIError):
        gate.admit(bearer("sk-aaaaaaaa"))


def test_there_is_nothing_to_go_on_with_if_the_first_file_is_bad(tmp_path):
    with pytest.raises(KeysError, match=r"absent\.yaml: can't be read: No such file"):
        Gate(tmp_path / "absent.yaml")


@given(st.lists(st.sampled_from(["", "tool", "chat"]), max_size=12))
def test_no_order_of_comings_and_goings_passes_a_ceiling(kinds):
    [key, _] = parse_keys(GOOD.encode())
    ceilings = {"": key.max_concurrent_requests} | key.ceilings
    principal = Principal(ceilings=ceilings)
    held = ExitStack()
    for kind in kinds:
        if principal.in_flight[kind] < ceilings.get(kind, 99):
            held.enter_context(principal.hold(kind))
        else:
            with pytest.raises(APIError):
                principal.hold(kind)
    held.close()
    assert not any(principal.in_flight.values())
