"""values.schema.json: what it accepts, the templates can render; what it does not know, it refuses."""

import json
from itertools import pairwise

import helm_python
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from support.chart import CHART, WITHOUT_SCHEMA, chart, check_shape, render

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
# What the schema leaves to Kubernetes: it takes any object, and the API takes only some.
OPAQUE = {
    "affinity": [{}, {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}],
    "metricsFrom": [[], [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]],
    "global": [{"anything": 1}],
}


def strategy(schema, name=""):
    """Values that fit a schema, as far as the chart's schema goes."""
    if name in OPAQUE:
        return st.sampled_from(OPAQUE[name])
    if "$ref" in schema:
        return strategy(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    if "oneOf" in schema:
        return st.one_of(*map(strategy, schema["oneOf"]))
    return BY_TYPE[schema.get("type", "string")](schema)


def objects_of(schema):
    fields = {name: strategy(part, name) for name, part in schema.get("properties", {}).items()}
    required = {name: fields.pop(name) for name in schema.get("required", ())}
    known = st.fixed_dictionaries(required, optional=fields)
    if not isinstance(more := schema.get("additionalProperties"), dict):
        return known
    return st.dictionaries(
        strategy(schema.get("propertyNames", {"pattern": "^[a-z]{1,8}$"})), strategy(more), max_size=2
    )


def lists_of(schema):
    unique = schema.get("uniqueItems", False)
    return st.lists(strategy(schema["items"]), min_size=schema.get("minItems", 0), max_size=3, unique=unique)


def strings_of(schema):
    some = st.from_regex(schema["pattern"], fullmatch=True) if "pattern" in schema else st.text(max_size=20)
    return some.filter(lambda text: "\n" not in text and len(text) <= schema.get("maxLength", 63))


BY_TYPE = {
    "array": lists_of,
    "boolean": lambda _: st.booleans(),
    "integer": lambda schema: st.integers(schema.get("minimum"), schema.get("maximum")),
    "number": lambda schema: st.floats(schema["minimum"], schema.get("maximum", 1e6)),
    "object": objects_of,
    "string": strings_of,
}


@given(values=strategy(SCHEMA).filter(Draft202012Validator(SCHEMA).is_valid), upgrade=st.booleans())
@settings(max_examples=25)
def test_whatever_the_schema_accepts_renders_to_objects_that_kubernetes_accepts(values, upgrade):
    for document in render(values, upgrade=upgrade):
        if document["kind"] not in WITHOUT_SCHEMA | {"CustomResourceDefinition"}:
            check_shape(document)


def closed(schema, path=()):
    """The paths of all parts of the values that have a closed list of fields."""
    if schema.get("additionalProperties") is False:
        yield path
    for name, part in schema.get("properties", {}).items():
        yield from closed(part, (*path, name))


@pytest.mark.parametrize("path", list(closed(SCHEMA)), ids=lambda path: ".".join(path) or "values")
def test_an_unknown_value_is_refused_wherever_it_stands(path):
    values = {"unheardOf": 1}
    for name in reversed(path):
        values = {name: values}
    with pytest.raises(helm_python.HelmError, match="unheardOf"):
        chart().validate_schema(values)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"replicas": "two"}, "replicas"),
        ({"watch": {"namespaces": "some"}}, "namespaces"),
        ({"watch": {"namespaces": ["Not_A_Name"]}}, "namespaces"),
        ({"serviceMonitor": {"enabled": "maybe"}}, "serviceMonitor"),
        ({"serviceAccount": {"create": False}}, "serviceAccount"),
        ({"prometheusRule": {"attainment": 95}}, "attainment"),
        ({"classes": {"chat": {}}}, "chat"),
        ({"pools": {"Big": {"model": "m"}}}, "Big"),
    ],
    ids=lambda case: next(iter(case)) if isinstance(case, dict) else None,
)
def test_a_mistake_is_refused_by_name(values, names):
    with pytest.raises(helm_python.HelmError, match=names):
        chart().validate_schema(values)


def test_every_value_has_a_default():
    sections = {name: part for name, part in SCHEMA["properties"].items() if name != "global"}
    assert set(DEFAULTS) == set(sections)
    for name, part in sections.items():
        if "properties" in part and name not in OPAQUE:
            assert set(DEFAULTS[name]) == set(part["properties"])


def test_every_value_has_a_comment():
    lines = (CHART / "values.yaml").read_text().splitlines()
    fields = [(before, line) for before, line in pairwise(lines) if ":" in line and not line.lstrip().startswith("#")]
    inner = [(before, line) for before, line in fields if line.startswith(" ")]
    assert [line for before, line in inner if not before.lstrip().startswith("#")] == []
