"""The schemas in `crds/` and the parsed form in Python are the same, field by field."""

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import yaml
from msgspec import inspect

from support.crd import FILES, RULES, nodes, schema
from tempo_api.manifest import SLOClassManifest, TempoPoolManifest
from tempo_api.manifest.spec import Volume, VolumeMount
from tempo_operator.conditions import Reason

KINDS = {"SLOClass": SLOClassManifest, "TempoPool": TempoPoolManifest}
OPEN = {"volumes": Volume, "volumeMounts": VolumeMount}
"""Fields whose entries go on as they are, with what is read of them."""
LARGEST = 100_000
"""Rules over anything that may be larger cost more than an API server grants."""


def openapi(kind: inspect.Type, default: Any = None) -> dict[str, Any]:
    """The schema that says what a type of the parsed form says."""
    extra: dict[str, Any] = {}
    if isinstance(kind, inspect.Metadata):
        extra, kind = kind.extra_json_schema or {}, kind.type
    found = {**_of(kind), **extra}
    if default not in (None, [], {}):
        found["default"] = default
    return found


def _of(kind: inspect.Type) -> dict[str, Any]:
    if isinstance(kind, inspect.DictType) and isinstance(kind.value_type, inspect.AnyType):
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return WORDS[type(kind)](kind)


def _map(kind: inspect.DictType) -> dict[str, Any]:
    values = openapi(kind.value_type)
    return {"type": "object", "additionalProperties": values, **_lengths(kind, "Properties")}


def _union(parts: list[inspect.Type]) -> dict[str, Any]:
    if len(parts) == 1:
        return openapi(parts[0])
    whole, text = parts
    assert (type(whole), type(text)) == (inspect.IntType, inspect.StrType)
    either = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
    return either | {key: value for key, value in openapi(text).items() if key != "type"}


def _object(fields: tuple[inspect.Field, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object", "properties": {field.encode_name: _field(field) for field in fields}}
    required = [field.encode_name for field in fields if field.required]
    return found | ({"required": sorted(required)} if required else {})


def _field(field: inspect.Field) -> dict[str, Any]:
    if field.encode_name in OPEN:
        entry = openapi(inspect.type_info(OPEN[field.encode_name]))
        return openapi(field.type) | {"items": entry | {"x-kubernetes-preserve-unknown-fields": True}}
    if field.default_factory is not msgspec.NODEFAULT:
        return openapi(field.type)
    if isinstance(field.default, msgspec.Struct):
        found = openapi(field.type)
        nested = any("default" in inner for inner in found["properties"].values())
        return found | ({"default": {}} if nested or field.encode_name == "objectives" else {})
    return openapi(field.type, None if field.default is msgspec.NODEFAULT else field.default)


def _bounds(kind: inspect.IntType | inspect.FloatType) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, closed, opened in (("minimum", kind.ge, kind.gt), ("maximum", kind.le, kind.lt)):
        if closed is not None:
            found[name] = closed
        if opened is not None:
            found |= {name: opened, f"exclusive{name.capitalize()}": True}
    return found


def _lengths(kind: Any, what: str) -> dict[str, Any]:
    bounds = {f"min{what}": kind.min_length, f"max{what}": kind.max_length}
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _pattern(kind: inspect.StrType) -> dict[str, Any]:
    return {} if kind.pattern is None else {"pattern": re.sub(r"\\Z$", "$", kind.pattern)}


WORDS: dict[type[inspect.Type], Callable[[Any], dict[str, Any]]] = {
    inspect.BoolType: lambda _: {"type": "boolean"},
    inspect.IntType: lambda kind: {"type": "integer", **_bounds(kind)},
    inspect.FloatType: lambda kind: {"type": "number", **_bounds(kind)},
    inspect.StrType: lambda kind: {"type": "string", **_lengths(kind, "Length"), **_pattern(kind)},
    inspect.LiteralType: lambda kind: {"type": "string", "enum": sorted(kind.values)},
    inspect.EnumType: lambda kind: {"type": "string", "enum": sorted(member.value for member in kind.cls)},
    inspect.ListType: lambda kind: {"type": "array", "items": openapi(kind.item_type), **_lengths(kind, "Items")},
    inspect.DictType: _map,
    inspect.UnionType: lambda kind: _union([p for p in kind.types if not isinstance(p, inspect.NoneType)]),
    inspect.StructType: lambda kind: _object(kind.fields),
}


def bare(node: Any) -> Any:
    """A schema without what the parsed form has no word for."""
    if isinstance(node, list):
        return sorted(node) if all(isinstance(item, str) for item in node) else [bare(item) for item in node]
    if not isinstance(node, dict):
        return node
    silent = {"description", "format", RULES, "x-kubernetes-list-type", "x-kubernetes-list-map-keys"}
    copy = {key: bare(value) for key, value in node.items() if key not in silent and key != "properties"}
    if "properties" in node:
        copy["properties"] = {name: bare(inner) for name, inner in node["properties"].items()}
    return copy


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_the_type_enum_default_and_bounds_of_the_parsed_form(kind):
    manifest = inspect.type_info(KINDS[kind])
    (spec,) = (field.type for field in manifest.fields if field.name == "spec")
    stated = bare(schema(kind)["properties"]["spec"])
    if kind == "TempoPool":  # a list that is there holds something: one of the parser's rules
        assert stated["properties"]["classes"].pop("minItems") == 1
    assert stated == openapi(spec)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described(kind):
    silent = [path for path, node in nodes(schema(kind)) if path != ".metadata" and not node.get("description")]
    assert silent == []


@pytest.mark.parametrize("kind", KINDS)
def test_everything_in_a_spec_is_bounded_so_that_rules_stay_within_their_budget(kind):
    unbounded = []
    for path, node in nodes(schema(kind)["properties"]["spec"]):
        limits = {"string": "maxLength", "array": "maxItems"}
        limit = limits.get(node.get("type", "")) or ("maxProperties" if "additionalProperties" in node else None)
        if limit and "enum" not in node and not node.get(limit, LARGEST + 1) <= LARGEST:
            unbounded.append(path)
    assert unbounded == []


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_named_things_are_merged_by_name(kind):
    for path, node in nodes(schema(kind)):
        if node.get("type") == "array":
            named = {"name", "type"} & set(node["items"].get("required", ()))
            assert node["x-kubernetes-list-type"] == ("map" if named else "atomic"), path


def test_a_pool_s_status_has_room_for_every_reason_and_no_other():
    status = schema("TempoPool")["properties"]["status"]["properties"]
    of_pools = {reason.value for reason in Reason} - {Reason.ACCEPTED.value}
    assert set(status["reason"]["enum"]) == of_pools
    assert set(status["conditions"]["items"]["properties"]["reason"]["enum"]) == of_pools


def columns(kind):
    crd = yaml.safe_load(FILES[kind].read_text())
    assert crd["metadata"]["name"] == f"{crd['spec']['names']['plural']}.{crd['spec']['group']}"
    return crd["spec"], [column["name"].upper() for column in crd["spec"]["versions"][0]["additionalPrinterColumns"]]


def test_kubectl_get_says_whether_a_pool_keeps_its_promises_and_if_not_why():
    spec, names = columns("TempoPool")
    assert names == ["MODEL", "READY", "REPLICAS", "ATTAINMENT", "GAIN/S", "QUEUED", "REASON", "AGE"]
    assert (spec["scope"], spec["names"]["shortNames"]) == ("Namespaced", ["tp"])
    assert spec["versions"][0]["subresources"].keys() == {"status", "scale"}


def test_kubectl_get_says_what_a_class_promises():
    spec, names = columns("SLOClass")
    assert names == ["PATTERN", "TTFT", "TBT", "DEADLINE", "WEIGHT", "ACCEPTED", "AGE"]
    assert (spec["scope"], spec["names"]["shortNames"]) == ("Cluster", ["slo"])
