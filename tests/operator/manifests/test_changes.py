"""What restarts pods, and what their parts read."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from support.manifest_cases import SECRET, slo
from support.pool_objects import CLASSES, POOLS, config, made, part, template
from tempo_api.manifest import ManifestError, build_pool, load_manifests, parse_manifest

NO_RESTART = {
    "a class": {"classes": [{"name": "chat"}]},
    "a weight": {"classes": [{"name": "chat", "weight": 9}, {"name": "batch"}]},
    "the scheduler": {"scheduler": {"policy": "fcfs", "patience": "5s"}},
    "the router's limits": {"router": {"maxBodyBytes": 1, "maxConcurrentRequests": 7}},
    "service tiers": {"router": {"serviceTiers": {"flex": "batch"}}},
    "the Service": {"router": {"service": {"type": "LoadBalancer", "port": 8080}}},
    "the number of routers": {"router": {"replicas": 5}},
    "the number of engines": {"replicas": 5},
}


@pytest.mark.parametrize("change", NO_RESTART)
def test_these_changes_restart_no_pod(change):
    before, after = made(), made(**NO_RESTART[change])
    assert before != after
    assert template(before) == template(after)
    assert template(before, "Deployment", "demo-router") == template(after, "Deployment", "demo-router")


def test_a_changed_class_reaches_the_configuration_and_nothing_else():
    before, after = made(), made(declared=(slo(default=True, gain={"weight": 3}), CLASSES[1]))
    changed = [item["kind"] for item, new in zip(before, after, strict=True) if item != new]
    assert changed == ["ConfigMap"]


def test_a_changed_engine_leaves_the_routers_and_the_configuration_alone():
    before, after = made(), made(engine={"args": ["--max-model-len=1024"], "env": [{"name": "A", "value": "secret"}]})
    changed = [item["kind"] for item, new in zip(before, after, strict=True) if item != new]
    assert changed == ["StatefulSet"]


@pytest.mark.parametrize("router", [{"resources": {"requests": {"cpu": 4}}}, {"auth": SECRET}, {"accessLog": True}])
def test_routers_that_need_more_leave_the_engines_and_the_configuration_alone(router):
    before, after = made(), made(router=router)
    changed = [item["kind"] for item, new in zip(before, after, strict=True) if item != new]
    assert changed == ["Deployment"]


@pytest.mark.parametrize("case", POOLS, ids=lambda case: case.about)
def test_the_configuration_means_the_same_to_the_parts_as_the_manifests(case):
    declared = [parse_manifest(document) for document in (*CLASSES, case.document)]
    here, there = build_pool(declared), build_pool(load_manifests(config(made(**case.document["spec"]))["pool.yaml"]))
    assert (there.classes, there.default_class, there.settings) == (here.classes, here.default_class, here.settings)
    assert there.served_model_name == here.served_model_name
    assert there.spec.scheduler == here.spec.scheduler
    assert there.spec.router.service_tiers == here.spec.router.service_tiers
    assert there.spec.router.max_body_bytes == here.spec.router.max_body_bytes


def test_the_configuration_holds_nothing_of_an_engine_s_environment():
    data = config(made(engine={"env": [{"name": "TOKEN", "value": "hush"}]}))
    assert "hush" not in json.dumps(data)


def test_routers_are_told_each_engine_pod_s_stable_name():
    data = config(made(engines=2))
    assert yaml.safe_load(data["replicas.yaml"]) == {
        "demo-engine-0": "http://demo-engine-0.demo-engine.models.svc:8001",
        "demo-engine-1": "http://demo-engine-1.demo-engine.models.svc:8001",
    }


@given(st.integers(0, 50))
@settings(max_examples=20)
def test_there_are_as_many_engines_as_routers_are_told_of(count):
    objects = made(engines=count)
    assert part(objects, "StatefulSet", "demo-engine")["spec"]["replicas"] == count
    assert len(yaml.safe_load(config(objects)["replicas.yaml"])) == count


def test_an_autoscaler_s_word_on_the_number_of_engines_counts():
    scaled = made(engines=3, autoscaling={"minReplicas": 2, "maxReplicas": 4})
    fresh = made(autoscaling={"minReplicas": 2, "maxReplicas": 4})
    assert [part(o, "StatefulSet", "demo-engine")["spec"]["replicas"] for o in (scaled, fresh)] == [3, 2]


def test_a_pool_whose_class_is_not_there_is_refused():
    with pytest.raises(ManifestError, match="there is no SLOClass 'cat'; did you mean chat"):
        made(classes=[{"name": "cat"}])
