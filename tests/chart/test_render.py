"""What the chart makes of its values."""

import tomllib

import helm_python
import pytest
import yaml

from support.chart import CHART, NAMESPACE, ROOT, WITHOUT_SCHEMA, check_shape, of_kind, render, render_files, the
from tempo_operator.cli import operator

EXAMPLES = sorted((ROOT / "examples" / "values").glob("*.yaml"))
EVERYTHING = {"replicas": 2, "serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}


def container(documents):
    [container] = the(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_helm_lint_finds_nothing_in_an_example_of_values(path):
    report = helm_python.lint(CHART, yaml.safe_load(path.read_text()), strict=True)
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("path", [None, *EXAMPLES], ids=lambda path: path.stem if path else "defaults")
@pytest.mark.parametrize("upgrade", [False, True], ids=["install", "upgrade"])
def test_every_object_fits_the_schemas_of_kubernetes(path, upgrade):
    documents = render(yaml.safe_load(path.read_text()) if path else {}, upgrade=upgrade)
    assert documents
    for document in documents:
        if document["kind"] not in WITHOUT_SCHEMA:
            check_shape(document)


def test_no_two_objects_have_one_name():
    documents = render({**EVERYTHING, "watch": {"namespaces": ["a", "b", NAMESPACE]}})
    names = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents]
    assert len(names) == len(set(names))


def test_every_object_says_whose_it_is():
    for document in render(EVERYTHING):
        assert document["metadata"]["labels"]["app.kubernetes.io/instance"] == "tempo"


def test_the_version_is_the_packages():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (about["version"], about["appVersion"]) == (version, version)
    assert container(render())["image"] == f"tempo:{version}"


def test_pods_meet_the_restricted_security_standard():
    documents = render()
    pods = [the(documents, "Deployment")["spec"]["template"]["spec"], the(documents, "Pod")["spec"]]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in pod["containers"]:
            assert one["securityContext"]["allowPrivilegeEscalation"] is False
            assert one["securityContext"]["readOnlyRootFilesystem"] is True
            assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert set(one["resources"]["limits"]) == {"cpu", "memory"}


@pytest.mark.parametrize(
    ("namespaces", "arguments"),
    [
        ([], ["--namespace=serving"]),
        (["a", "b"], ["--namespace=a", "--namespace=b"]),
        ("all", ["--all-namespaces"]),
    ],
    ids=["own", "listed", "all"],
)
def test_the_operator_watches_the_namespaces_of_the_values(namespaces, arguments):
    args = container(render({"watch": {"namespaces": namespaces}}))["args"]
    assert [arg for arg in args if "namespace" in arg and "metrics" not in arg] == arguments


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_operator_takes_the_arguments_that_it_is_given(path):
    one = container(render(yaml.safe_load(path.read_text())))
    name, *options = one["args"]
    with operator.make_context(name, options) as context:
        assert context.params["image"] == one["image"]
        assert context.params["port"] == one["ports"][0]["containerPort"]
        assert context.params["metrics_from"]


def test_pools_get_the_image_and_the_secrets_of_the_operator():
    values = {
        "image": {"repository": "mirror/tempo", "tag": "1", "pullSecrets": ["mirror"]},
        "engine": {"image": "mirror/vllm:2"},
        "networkPolicy": {"enabled": False},
    }
    documents = render(values)
    args = container(documents)["args"]
    assert {"--image=mirror/tempo:1", "--image-pull-secret=mirror", "--engine-image=mirror/vllm:2"} <= set(args)
    assert "--no-network-policy" in args
    assert of_kind(documents, "NetworkPolicy") == []


def test_a_digest_pins_the_image():
    digest = "sha256:" + "0" * 64
    assert container(render({"image": {"digest": digest, "tag": "ignored"}}))["image"] == f"tempo@{digest}"


def test_a_budget_only_guards_what_has_a_stand_in():
    assert of_kind(render(), "PodDisruptionBudget") == []
    budget = the(render({"replicas": 2}), "PodDisruptionBudget")
    pod = the(render(), "Deployment")["spec"]["template"]["metadata"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= pod["labels"].items()


def test_labels_of_the_user_do_not_take_the_pod_from_its_deployment():
    pod = the(render({"podLabels": {"app.kubernetes.io/name": "mine", "team": "a"}}), "Deployment")["spec"]["template"]
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "tempo"
    assert pod["metadata"]["labels"]["team"] == "a"


def test_the_operator_may_always_read_the_metrics_that_statuses_are_made_of():
    values = {"networkPolicy": {"metricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]}}
    documents = render(values)
    [argument] = [arg for arg in container(documents)["args"] if arg.startswith("--metrics-from=")]
    prometheus, operator = yaml.safe_load(argument.partition("=")[2])
    assert prometheus == values["networkPolicy"]["metricsFrom"][0]
    labels = the(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert operator["podSelector"]["matchLabels"].items() <= labels.items()
    assert operator["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": NAMESPACE}


def test_the_test_hook_reaches_the_operator():
    documents = render()
    pod, service = the(documents, "Pod"), the(documents, "Service")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert (
        f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/"
        in pod["spec"]["containers"][0]["args"][0]
    )
    allowed = the(documents, "NetworkPolicy")["spec"]["ingress"][0]["from"]
    assert {"podSelector": {"matchLabels": pod["metadata"]["labels"]}} in allowed


def test_the_notes_name_files_that_exist():
    commands = [line.split() for line in render_files()["NOTES.txt"].splitlines() if line.startswith("  kubectl")]
    assert len(commands) == 3
    for word in (word for command in commands for word in command if word.startswith("examples/")):
        assert (ROOT / word).is_file()


WITH_POOLS = {
    "classes": {"chat": {"pattern": "BestEffort"}, "404": {"pattern": "BestEffort"}},
    "pools": {"small": {"model": "m"}},
}


def test_classes_and_pools_come_with_the_release_and_outlive_it():
    documents = render(WITH_POOLS, upgrade=True)
    assert {d["metadata"]["name"] for d in of_kind(documents, "SLOClass")} == {"chat", "404"}
    pool = the(documents, "TempoPool")
    assert pool["metadata"]["namespace"] == NAMESPACE
    assert pool["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert pool["spec"] == {"model": "m"}


def test_classes_and_pools_wait_for_the_second_run_where_the_cluster_does_not_know_them():
    assert of_kind(render(WITH_POOLS), "TempoPool") == []
    assert "helm upgrade tempo" in render_files(WITH_POOLS)["NOTES.txt"]
    assert "helm upgrade" not in render_files(WITH_POOLS, upgrade=True)["NOTES.txt"]
