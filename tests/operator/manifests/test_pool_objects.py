"""What a pool is made of in a cluster."""

import json
from dataclasses import replace
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from support.pool_objects import CLASSES, OPTIONS, POOLS, containers, made, routers, template
from tempo_api.manifest import load_manifests
from tempo_operator.kinds import kind_of
from tempo_operator.manifests import pool_objects

GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = Path(__file__).parents[3] / "examples"
PROMETHEUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
KUBERNETES = "1.37"


class _Plain(yaml.SafeDumper):
    """Without anchors and with texts as they are, so that a reader sees each object whole."""

    def ignore_aliases(self, data):
        return True


_Plain.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


@pytest.mark.parametrize("example", ["pool-one-gpu", "pool-multi-gpu", "pool-simulated"])
def test_the_examples_are_made_of_this(example):
    """After a change that is meant to be: delete the file, run this twice, and read what changed."""
    manifests = load_manifests("\n---\n".join((EXAMPLES / f"{n}.yaml").read_text() for n in ("classes", example)))
    options = replace(OPTIONS, pod_monitor=True, metrics_from=(PROMETHEUS,))
    text = yaml.dump_all(
        pool_objects(manifests[-1], manifests[:-1], options), Dumper=_Plain, sort_keys=False, width=120
    )
    path = GOLDEN / f"{example}.yaml"
    if not path.exists():
        path.write_text(text, encoding="utf-8")
        pytest.fail(f"{path.name} was not there; it is now")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("case", POOLS, ids=lambda case: case.about)
def test_every_object_is_valid_for_kubernetes_and_known_to_the_operator(case):
    for item in made(case.document["metadata"]["name"], **case.document["spec"]):
        kubernetes_validate.validate(item, KUBERNETES, strict=True)
        assert kind_of(item)


def test_equal_input_gives_equal_output_whatever_the_order_of_the_classes():
    assert json.dumps(made()) == json.dumps(made(declared=CLASSES[::-1]))


def test_what_pods_need_comes_before_them():
    kinds = [item["kind"] for item in made()]
    assert kinds.index("ConfigMap") == 0
    assert kinds.index("ServiceAccount") < kinds.index("StatefulSet")
    assert kinds[-2:] == ["StatefulSet", "Deployment"]


@pytest.mark.parametrize("name", ["p", "p" * 40])
def test_every_name_and_label_fits(name):
    for item in made(name):
        names = [item["metadata"]["name"], *item["metadata"]["labels"].values()]
        revision = f"{item['metadata']['name']}-{'f' * 10}" if item["kind"] == "StatefulSet" else ""
        assert all(len(word) <= 63 for word in (*names, revision))


def test_optional_objects_are_left_out_where_they_are_not_wanted():
    kinds = {item["kind"] for item in made(options=replace(OPTIONS, network_policy=False))}
    assert not kinds & {"NetworkPolicy", "PodMonitor", "Role", "RoleBinding"}


def test_no_pod_has_a_token_for_the_api_server():
    for spec in (template(made())["spec"], template(made(), "Deployment", "demo-router")["spec"]):
        assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize("kind", ["VLLM", "Simulated"])
def test_everything_but_vllm_runs_restricted(kind):
    objects = made(engine={"kind": kind})
    ours = {**containers(objects), "router": routers(objects)}
    engine = ours["engine"] if kind == "Simulated" else ours.pop("engine")
    for container in ours.values():
        context = container["securityContext"]
        assert context["runAsNonRoot"]
        assert context["readOnlyRootFilesystem"]
    for container in (*ours.values(), engine):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]


def test_the_golden_files_are_of_examples_that_are_there():
    assert {path.stem for path in GOLDEN.glob("*.yaml")} <= {path.stem for path in EXAMPLES.glob("*.yaml")}
