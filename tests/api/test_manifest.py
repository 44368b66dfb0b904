"""Manifests: what is accepted, and that every mistake is one line that names its place."""

from math import inf
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tempo_api.durations import parse_duration
from tempo_api.manifest import ManifestError, build_pool, load_manifests, load_pool, parse_manifest
from tempo_core.slo import Pattern

API = "serving.tempo.dev/v1alpha1"
QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.yaml"


def slo(name: str = "chat", **spec) -> dict:
    spec = {"pattern": "Latency", "objectives": {"ttft": "2s", "tbt": "100ms"}, **spec}
    return {"apiVersion": API, "kind": "SLOClass", "metadata": {"name": name}, "spec": spec}


def pool(**spec) -> dict:
    return {
        "apiVersion": API,
        "kind": "TempoPool",
        "metadata": {"name": "demo"},
        "spec": {"model": "m", **spec},
    }


def text(*documents: dict) -> str:
    return yaml.safe_dump_all(documents)


def refused(*documents: dict) -> str:
    with pytest.raises(ManifestError) as caught:
        build_pool(load_manifests(text(*documents), "pool.yaml"))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_quickstart_declares_three_kinds_of_traffic() -> None:
    quickstart = load_pool(QUICKSTART)
    assert {c.pattern for c in quickstart.classes.values()} == {
        Pattern.LATENCY,
        Pattern.DEADLINE,
        Pattern.COLLECTIVE,
    }
    assert quickstart.default.name == "chat"
    assert quickstart.replicas == 1


def test_durations_become_seconds_and_absent_targets_infinite() -> None:
    parsed = build_pool(load_manifests(text(slo(), pool())))
    objectives = parsed.default.objectives
    assert (objectives.ttft_s, objectives.tbt_s, objectives.ttlt_s) == (2.0, 0.1, inf)


def test_hard_decay_is_all_or_nothing() -> None:
    assert build_pool(load_manifests(text(slo(gain={"decay": "hard"}), pool()))).default.gain.hard


def test_a_pool_may_weigh_a_class_otherwise_and_serve_some_classes_only() -> None:
    manifests = load_manifests(text(slo(), slo("batch", pattern="BestEffort", objectives={}), slo("other")))
    manifests += load_manifests(text(pool(classes=[{"name": "chat", "weight": 4}])))
    parsed = build_pool(manifests)
    assert parsed.classes.keys() == {"chat"}
    assert parsed.default.gain.weight == 4.0


@pytest.mark.parametrize(
    ("documents", "says"),
    [
        ([slo(gain={"wieght": 1})], "pool.yaml: SLOClass chat: spec.gain.wieght: unknown field; did you mean weight?"),
        ([slo(gain={"weight": -1})], "pool.yaml: SLOClass chat: spec.gain.weight: expected `float` > 0.0"),
        ([slo(objectives={})], "pool.yaml: SLOClass chat: spec.objectives: pattern Latency takes ttft and tbt"),
        ([slo(objectives={"ttlt": "3s"})], "spec.objectives.ttlt: pattern Latency takes ttft and tbt"),
        ([slo(objectives={"ttft": "2s", "tbt": "fast"})], "spec.objectives.tbt: 'fast' is not a duration; write"),
        ([slo(objectives={"ttft": "0s", "tbt": "1s"})], "spec.objectives.ttft: must be between 1ms and 168h"),
        ([slo(pattern="Quick")], "spec.pattern: invalid enum value 'Quick'"),
        ([slo("Chat")], "metadata.name"),
        ([slo("a", default=True), slo("b", default=True), pool()], "only one class can be the default, not a and b"),
        ([slo("a"), slo("b"), pool()], "none of its classes is the default"),
        ([slo(), slo(), pool()], "SLOClass chat: metadata.name: is declared twice"),
        (
            [slo(), pool(classes=[{"name": "caht"}])],
            "spec.classes[0].name: there is no SLOClass 'caht'; did you mean chat?",
        ),
        ([slo(), pool(classes=[])], "spec.classes: is empty"),
        ([slo(), pool(replicas=2, autoscaling={"maxReplicas": 4})], "spec.replicas: give replicas or autoscaling"),
        ([slo(), pool(autoscaling={"minReplicas": 5, "maxReplicas": 4})], "spec.autoscaling.minReplicas: is larger"),
        ([slo(), pool(router={"serviceTiers": {"flex": "nope"}})], "spec.router.serviceTiers.flex: 'nope' is no class"),
        ([slo(), pool(scheduler={"lengthQuantile": 1.5})], "spec.scheduler.lengthQuantile: expected `float` < 1.0"),
        ([slo(), pool(engine={"kind": "Other"})], "spec.engine.kind"),
        (
            [slo(gain={"decay": 0.5})],
            'spec.gain.decay: a number with a fraction is written in quotes here, such as "0.5"',
        ),
        ([slo(gain={"decay": 0})], "spec.gain.decay: expected `int` >= 1"),
        ([slo(), pool(engine={"args": ["--port=1"]})], "spec.engine.args[0]: --port is set by Tempo; leave it out"),
        ([slo(), pool(engine={"env": [{"name": "A"}] * 2})], "spec.engine.env[1].name: 'A' is listed twice"),
        ([slo(), pool(engine={"volumes": [{"name": "a"}, {}]})], "spec.engine.volumes[1].name: is required"),
        ([slo(), pool(classes=[{"name": "chat"}] * 2)], "spec.classes[1].name: 'chat' is listed twice"),
        ([slo()], "exactly one TempoPool is needed, found none"),
        ([pool()], "there is no SLOClass for it to serve"),
        ([{"kind": "Pod"}], "kind: must be SLOClass or TempoPool, not 'Pod'"),
        ([slo() | {"apiVersion": "v1"}], "apiVersion"),
        ([{**pool(), "spec": {}}], "spec.model: is required"),
    ],
)
def test_a_mistake_is_one_line_that_names_its_place(documents: list[dict], says: str) -> None:
    assert says in refused(*documents)


def test_a_file_that_is_not_there_or_not_yaml_says_so(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="can't be read"):
        load_pool(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(ManifestError, match=r"broken\.yaml: not YAML"):
        load_pool(broken)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_no_document_whatever_raises_anything_but_a_manifest_error(document: object) -> None:
    try:
        parse_manifest(document)
    except ManifestError as error:
        assert str(error)


@given(st.sampled_from(["pattern", "objectives", "gain", "overload", "default"]), json_values)
def test_no_field_value_raises_anything_but_a_manifest_error(field: str, value: object) -> None:
    try:
        parse_manifest(slo(**{field: value}))
    except ManifestError as error:
        assert "SLOClass chat" in str(error)


@pytest.mark.parametrize(
    ("written", "seconds"), [("100ms", 0.1), ("2s", 2.0), ("1m30s", 90.0), ("1.5h", 5400.0), ("250us", 0.00025)]
)
def test_durations_are_read_as_kubernetes_writes_them(written: str, seconds: float) -> None:
    assert parse_duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize("written", ["", "5", "s", "-1s", "1 s", "1d", "1s2", "abc", "1e3s"])
def test_what_is_no_duration_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(ValueError, match="such as 100ms, 2s or 1m30s"):
        parse_duration(written)
