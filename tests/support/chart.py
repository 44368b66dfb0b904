"""The Helm chart, rendered by a real Helm, and what a Kubernetes API server would say of the shape of the result."""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml
from jsonschema import Draft202012Validator
from kubernetes_validate.utils import latest_version, schema_contents
from referencing import Registry, Resource

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "tempo"
NAMESPACE = "serving"
# Kinds of other people's APIs, and our own, which the CRDs' tests look at.
WITHOUT_SCHEMA = {"ServiceMonitor", "PrometheusRule", "SLOClass", "TempoPool"}

Document = dict[str, Any]


@functools.cache
def chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def render_files(values: Mapping[str, Any] | None = None, *, upgrade: bool = False) -> dict[str, str]:
    """What each template becomes, by its path in the chart."""
    files = chart().render(
        dict(values or {}), name="tempo", namespace=NAMESPACE, is_upgrade=upgrade, is_install=not upgrade
    )
    return {path.removeprefix("tempo/templates/"): text for path, text in files.items()}


def render(values: Mapping[str, Any] | None = None, *, upgrade: bool = False) -> list[Document]:
    """Every object of a release called tempo in the namespace `NAMESPACE`."""
    files = render_files(values, upgrade=upgrade)
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    return [document for text in texts for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def of_kind(documents: Iterable[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


def the(documents: Iterable[Document], kind: str) -> Document:
    """The only one of its kind."""
    [document] = of_kind(documents, kind)
    return document


def check_shape(document: Document) -> None:
    """Raise jsonschema's error if the document doesn't fit Kubernetes' own schema, or has a field too many."""
    group, _, version = document["apiVersion"].rpartition("/")
    kind = "-".join(part for part in (document["kind"].lower(), group.partition(".")[0], version) if part)
    _validator(kind).validate(document)


@functools.cache
def _validator(kind: str) -> Draft202012Validator:
    """kubernetes-validate reads 10 MB of definitions for each object that it looks at; here they are read once."""
    schema = schema_contents(f"kubernetes-json-schema/v{latest_version()}-local-strict/{kind}.json", "")
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _definitions())


@functools.cache
def _definitions() -> Registry[Any]:
    path = f"kubernetes-json-schema/v{latest_version()}-local-strict/_definitions.json"
    return Resource.from_contents(schema_contents(path, "")) @ Registry()
