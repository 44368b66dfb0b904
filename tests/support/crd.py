"""What an API server does with an object of a CRD: nulls pruned, schema, defaults, list keys, rules (CEL).

Unknown fields are refused, as `kubectl apply` has the server do. Like the server, rules are only tried on what fits the
schema.
"""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import celpy
import jsonschema
import yaml

CRDS = Path(__file__).parents[2] / "crds"
FILES = {"SLOClass": CRDS / "sloclasses.yaml", "TempoPool": CRDS / "tempopools.yaml"}
RULES = "x-kubernetes-validations"
_CEL = celpy.Environment()
_CEL.compile("true")  # raises the recursion limit of the process, and hypothesis minds if that happens during a test


@cache
def schema(kind: str) -> dict[str, Any]:
    """The schema of a kind."""
    crd = yaml.safe_load(FILES[kind].read_text(encoding="utf-8"))
    found: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def nodes(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema within a schema, with its path."""
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for name, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if name in node:
            yield from nodes(node[name], path + mark)


def problems(document: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[str]:
    """Why the API server refuses a document, or the change of `old` to it; nothing where it takes it."""
    root = schema(document["kind"])
    document = admitted(document)
    found = [f"{error.json_path}: {error.message}" for error in _validator(document["kind"]).iter_errors(document)]
    found = found or list(_doubled(root, document, ""))
    return found or list(_broken(root, document, None if old is None else admitted(old), ""))


def admitted(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without nulls and with its defaults."""
    copy = _pruned(document)
    _fill(schema(document["kind"]), copy)
    return copy


def _pruned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _pruned(inner) for key, inner in value.items() if inner is not None}
    return [_pruned(inner) for inner in value] if isinstance(value, list) else value


def _fill(node: Mapping[str, Any], value: Any) -> None:
    if isinstance(value, dict):
        for name, inner in node.get("properties", {}).items():
            if name not in value and "default" in inner:
                value[name] = deepcopy(inner["default"])
            if name in value:
                _fill(inner, value[name])
    elif isinstance(value, list):
        for item in value:
            _fill(node.get("items", {}), item)


@cache
def _validator(kind: str) -> jsonschema.Draft4Validator:
    return jsonschema.Draft4Validator(_closed(schema(kind)))


def _closed(node: Mapping[str, Any]) -> dict[str, Any]:
    """The schema in JSON Schema's words, where an unknown field is an error."""
    copy = {key: value for key, value in node.items() if not key.startswith("x-")}
    if "pattern" in node:
        copy["pattern"] = re.sub(r"\$$", r"\\Z", node["pattern"])  # Python's `$` would let a line's end pass
    if "properties" in node:
        copy["properties"] = {name: _closed(inner) for name, inner in node["properties"].items()}
        copy["additionalProperties"] = "x-kubernetes-preserve-unknown-fields" in node
    for name in ("items", "additionalProperties"):
        if name in node:
            copy[name] = _closed(node[name])
    return copy


def _doubled(node: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    if keys := node.get("x-kubernetes-list-map-keys"):
        found = [tuple(item[key] for key in keys) for item in value]
        if len(set(found)) < len(found):
            yield f"{path}: Duplicate value"
    for inner, part, where in _parts(node, value, path):
        yield from _doubled(inner, part, where)


def _broken(node: Mapping[str, Any], value: Any, old: Any, path: str) -> Iterator[str]:
    for rule in node.get(RULES, ()):
        facts = {"self": celpy.json_to_cel(value), "oldSelf": celpy.json_to_cel(old)}
        about_change = "oldSelf" in rule["rule"]
        if (not about_change or old is not None) and not _holds(rule["rule"], facts):
            yield f"{path}{rule.get('fieldPath', '')}: {rule['message']}"
    for inner, part, where in _parts(node, value, path):
        before = old.get(where.rpartition(".")[2]) if isinstance(old, Mapping) else None
        yield from _broken(inner, part, before, where)


def _parts(node: Mapping[str, Any], value: Any, path: str) -> Iterator[tuple[Mapping[str, Any], Any, str]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            inner = node.get("properties", {}).get(name) or node.get("additionalProperties")
            if inner:
                yield inner, part, f"{path}.{name}"
    elif isinstance(value, list) and "items" in node:
        for index, part in enumerate(value):
            yield node["items"], part, f"{path}[{index}]"


@cache
def _program(rule: str) -> celpy.Runner:
    return _CEL.program(_CEL.compile(rule))


def _holds(rule: str, facts: Mapping[str, Any]) -> bool:
    try:
        return bool(_program(rule).evaluate(dict(facts)))
    except celpy.CELEvalError:  # a rule that can't be evaluated refuses
        return False
