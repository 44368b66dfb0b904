"""What the schemas take the parser takes, and the other way round."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from support.crd import problems, schema
from support.manifest_cases import CHANGES, REFUSED, TAKEN, pool, slo
from tempo_api.manifest import ManifestError, dump_manifests, load_manifests, parse_manifest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def parse_error(document):
    try:
        parse_manifest(document)
    except ManifestError as error:
        return str(error)
    return None


@pytest.mark.parametrize("case", TAKEN, ids=lambda case: case.about)
def test_both_take(case):
    assert problems(case.document) == []
    assert parse_error(case.document) is None


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.about)
def test_both_refuse(case):
    assert problems(case.document)
    assert parse_error(case.document) is not None


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.about)
def test_what_clients_and_learned_models_rely_on_can_t_be_changed(change):
    said = "\n".join(problems(change.new, change.old))
    assert change.refused in said if change.refused else not said


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_both_take_the_examples(path):
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        assert problems(document) == []
        assert parse_error(document) is None


@pytest.mark.parametrize("case", TAKEN, ids=lambda case: case.about)
def test_what_is_written_back_means_the_same(case):
    manifest = parse_manifest(case.document)
    text = dump_manifests([manifest])
    assert load_manifests(text) == [manifest]
    assert dump_manifests(load_manifests(text)) == text


WORDS = [
    "",
    "a",
    "a\n",
    "A",
    "a.b",
    "tempo-x",
    "chat",
    "x" * 63,
    "x" * 64,
    "--port=1",
    "--portable",
    "hard",
    "Latency",
    "0",
]
DURATIONS = [
    "1ms",
    "999us",
    "0.001s",
    "168h",
    "168h1us",
    "1m30s",
    "0h0m1s",
    "5",
    "1d",
    "-1s",
    "1s\n",
    "1e3s",
    "9" * 31 + "h",
]
NUMBERS = [-1, 0, 1, 2, 16, 17, 1000, 1001, 70_000, 0.5, -0.5, 0.9999, 2**40]
JUNK = st.sampled_from([None, True, 1, 1.5, "x", [], {}, [1], {"x": 1}])


def values(node, key=""):
    """Values that a schema may or may not take, mostly near its bounds."""
    kind = node.get("type")
    if "properties" in node:
        fields = {name: values(inner, name) for name, inner in node["properties"].items()}
        optional = {name: fields[name] for name in fields.keys() - set(node.get("required", ()))}
        needed = {name: fields[name] for name in node.get("required", ())}
        good = st.fixed_dictionaries(needed, optional=optional).map(few)
    elif kind == "array":
        good = st.lists(values(node["items"], key), max_size=3)
    elif "additionalProperties" in node:
        good = st.dictionaries(
            st.sampled_from(["a", "b/c", "memory"]), values(node["additionalProperties"]), max_size=3
        )
    elif "enum" in node:
        good = st.sampled_from([*node["enum"], "Other"])
    elif kind in {"integer", "number"}:
        near = [node[bound] + step for bound in ("minimum", "maximum") if bound in node for step in (-1, 0, 1)]
        good = st.sampled_from([*near, *NUMBERS])
    elif "x-kubernetes-int-or-string" in node:
        good = st.sampled_from([1, 0, 16, 17, "0.5", "1Gi", ".5", "1.", "-1", "hard", "0.0", "16.0001", "1e3", "1Gi\n"])
    elif kind == "boolean":
        good = st.booleans()
    else:
        good = st.sampled_from(DURATIONS if "us|ms" in node.get("pattern", "") else WORDS)
    return st.one_of(good, good, good, good, good, good, good, JUNK)


def few(fields):
    """Not more than three optional things at once, or something is always wrong."""
    return dict(list(fields.items())[:4])


def same_answer(document):
    refused, error = problems(document), parse_error(document)
    assert bool(refused) == (error is not None), (refused, error)


@settings(max_examples=150)
@given(st.data(), st.sampled_from(["SLOClass", "TempoPool"]))
def test_both_answer_alike_to_one_field_that_is_anything(data, kind):
    spec = schema(kind)["properties"]["spec"]["properties"]
    name = data.draw(st.sampled_from(sorted(spec)))
    base = slo() if kind == "SLOClass" else pool()
    same_answer({**base, "spec": {**base["spec"], name: data.draw(values(spec[name], name))}})


PATTERNS = {"Latency": ("ttft", "tbt"), "Deadline": ("ttlt",), "Collective": ("endToEnd",), "BestEffort": ()}


@given(
    st.sampled_from(sorted(PATTERNS)),
    st.dictionaries(st.sampled_from(["ttft", "tbt", "ttlt", "endToEnd", "perStage"]), st.sampled_from(DURATIONS)),
    st.booleans(),
)
def test_both_answer_alike_to_objectives(pattern, objectives, fitting):
    if fitting:
        objectives = dict.fromkeys(PATTERNS[pattern], "2s")
    same_answer(slo(pattern=pattern, objectives=objectives))


@given(st.text(st.sampled_from("ab-1.A\n"), max_size=5), st.integers(0, 64))
def test_both_answer_alike_to_names(name, more):
    same_answer(slo(name + "x" * more))
    same_answer(pool(name + "x" * more))
