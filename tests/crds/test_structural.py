"""The rules that an API server holds CRDs themselves to, beyond what schemas for manifests can say.

They are those of "structural schemas" and of the budget for CEL rules (apiextensions.k8s.io/v1).
"""

import re
from math import prod

import jsonschema
import kubernetes_validate
import pytest
import yaml

from support.crd import FILES, RULES, admitted, nodes, schema

VERSIONS = {kind: yaml.safe_load(path.read_text())["spec"]["versions"][0] for kind, path in FILES.items()}
EITHER = [{"type": "integer"}, {"type": "string"}]
SCALARS = {"string", "integer", "number", "boolean"}
LARGEST_REQUEST = 3 * 1024 * 1024
"""Bytes; what a text without maxLength is taken for."""
RULE_BUDGET, CRD_BUDGET = 10_000_000, 100_000_000
BYTES_A_CHARACTER, TRAVERSAL, REGEX = 4, 0.1, 0.25

both_kinds = pytest.mark.parametrize("kind", FILES)


@both_kinds
def test_a_crd_is_what_kubernetes_says_one_is(kind):
    kubernetes_validate.validate(yaml.safe_load(FILES[kind].read_text()), "1.36", strict=True)


@both_kinds
def test_every_node_has_one_type(kind):
    for path, node in nodes(schema(kind)):
        if node.get("x-kubernetes-int-or-string"):
            assert "type" not in node, path
            assert node["anyOf"] == EITHER, path
        else:
            assert node["type"] in SCALARS | {"object", "array"}, path
            assert not node.keys() & {"anyOf", "allOf", "oneOf", "not", "nullable"}, path


@both_kinds
def test_objects_have_named_fields_or_any_but_not_both(kind):
    for path, node in nodes(schema(kind)):
        assert not {"properties", "additionalProperties"} <= node.keys(), path
        assert set(node.get("required", ())) <= node.get("properties", {}).keys(), path
        assert node.get("type") != "array" or "items" in node, path
        assert node.get("x-kubernetes-preserve-unknown-fields", True) is True, path


@both_kinds
def test_items_of_a_merged_list_are_told_apart_by_scalars_that_are_always_there(kind):
    for path, node in nodes(schema(kind)):
        if node.get("x-kubernetes-list-type") == "map":
            items = node["items"]
            for key in node["x-kubernetes-list-map-keys"]:
                assert items["properties"][key]["type"] in SCALARS, path
                assert key in items.get("required", ()) or "default" in items["properties"][key], path


@both_kinds
def test_defaults_are_valid_by_their_own_schema_and_hold_no_unknown_field(kind):
    for path, node in nodes(schema(kind)):
        if "default" in node:
            jsonschema.Draft4Validator(dict(node)).validate(node["default"])
            assert not isinstance(node["default"], dict) or node["default"].keys() <= node["properties"].keys(), path
            assert path.startswith(".spec"), f"{path}: a status has no defaults, or every write would bring them back"


@both_kinds
def test_defaults_are_there_again_when_they_are_read_back(kind):
    spec = {"model": "m"} if kind == "TempoPool" else {"pattern": "BestEffort"}
    once = admitted({"kind": kind, "spec": spec})
    assert admitted(once) == once


@both_kinds
def test_columns_and_the_scale_are_read_from_fields_that_there_are(kind):
    paths = {re.sub(r"\[]|{}", "", path) for path, _ in nodes(schema(kind))} | {".metadata.creationTimestamp"}
    for column in VERSIONS[kind]["additionalPrinterColumns"]:
        assert column["type"] in {"integer", "number", "string", "boolean", "date"}
        path, _, rest = column["jsonPath"].partition("[")
        assert path in paths, column
        for name in re.findall(r"'(\w+)'", rest):
            assert f"{path}.{name}" in paths, column
    scale = VERSIONS[kind]["subresources"].get("scale", {})
    assert set(scale.values()) <= paths
    assert all(path.startswith(".spec." if name.startswith("spec") else ".status.") for name, path in scale.items())


@both_kinds
def test_patterns_are_of_go_s_kind(kind):
    for path, node in nodes(schema(kind)):
        assert not re.search(r"\(\?[=!<]|\\[1-9]|[*+?]\+", node.get("pattern", "")), path


def rules(kind):
    """Every rule with its path, its node, and how often it is tried at most."""
    root = schema(kind)
    every = dict(nodes(root))
    for path, node in every.items():
        above = [path[: match.start()] for match in re.finditer(r"\[]|{}", path)]
        times = prod(every[part].get("maxItems") or every[part].get("maxProperties") for part in above)
        for rule in node.get(RULES, ()):
            yield path, node, rule, times


def cost(node, rule):
    """About what an API server reckons: next to nothing but for looking through texts, most of all with a pattern."""
    is_text = node.get("type") == "string"
    longest = max(map(len, node.get("enum", [""]))) if "enum" in node else node.get("maxLength", LARGEST_REQUEST)
    bytes_ = BYTES_A_CHARACTER * longest if is_text else LARGEST_REQUEST
    patterns = re.findall(r"matches\('([^']*)'\)", rule["rule"])
    looks = is_text + sum(len(pattern) * REGEX for pattern in patterns)
    return 100 + bytes_ * TRAVERSAL * looks


@both_kinds
def test_rules_stay_within_an_api_server_s_budget(kind):
    costs = {f"{path}: {rule['message']}": cost(node, rule) * times for path, node, rule, times in rules(kind)}
    assert max(costs.values()) < RULE_BUDGET, max(costs, key=lambda rule: costs[rule])
    assert sum(costs.values()) < CRD_BUDGET


@both_kinds
def test_rules_have_a_message_of_one_line_and_blame_a_field_that_there_is(kind):
    for path, node, rule, _ in rules(kind):
        assert rule["message"].strip(), path
        assert "\n" not in rule["message"], path
        if field := rule.get("fieldPath"):
            assert field.removeprefix(".") in node["properties"], path


@both_kinds
def test_only_what_can_be_told_apart_from_one_version_to_the_next_has_rules_about_changes(kind):
    for path, _, rule, times in rules(kind):
        assert "oldSelf" not in rule["rule"] or times == 1, path
