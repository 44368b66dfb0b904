"""Documents in, manifests out, and back."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import yaml

from tempo_api.manifest.errors import ManifestError, explain
from tempo_api.manifest.rules import check_class, check_pool
from tempo_api.manifest.spec import SLOClassManifest, Spec, TempoPoolManifest

Manifest = SLOClassManifest | TempoPoolManifest


def parse_manifest(document: object) -> Manifest:
    """One parsed YAML or JSON document as a manifest.

    Raises:
        ManifestError: naming the field's path.

    """
    where = _where(document)
    if isinstance(document, dict) and document.get("kind") not in {"SLOClass", "TempoPool"}:
        raise ManifestError(where, "kind", f"must be SLOClass or TempoPool, not {document.get('kind')!r}")
    try:
        manifest: Manifest = msgspec.convert(_without_nulls(document), Manifest)
    except msgspec.ValidationError as error:
        raise explain(where, str(error), _field_names()) from error
    if isinstance(manifest, SLOClassManifest):
        check_class(where, manifest)
    else:
        check_pool(where, manifest)
    return manifest


def load_manifests(text: str, source: str = "") -> list[Manifest]:
    """All documents of a YAML file's text. `source`, the file's name, begins every error.

    Raises:
        ManifestError: for the first document that can't be used.

    """
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise ManifestError(source, "", f"not YAML: {' '.join(str(error).split())}") from error
    try:
        return [parse_manifest(document) for document in documents]
    except ManifestError as error:
        raise ManifestError(f"{source}: {error.where}" if source else error.where, error.path, error.problem) from error


def dump_manifests(manifests: Iterable[Manifest]) -> str:
    """The manifests as YAML, without what is default: equal manifests give equal text."""
    return yaml.safe_dump_all([msgspec.to_builtins(manifest) for manifest in manifests], sort_keys=False)


def _without_nulls(value: Any) -> Any:
    """A field that is null is a field that is absent, as for the API server."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


def _where(document: object) -> str:
    if not isinstance(document, dict):
        return "manifest"
    metadata = document.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    return f"{document.get('kind', 'manifest')} {name}".strip()


def _field_names() -> set[str]:
    """Every field name of the API: good enough to guess what was meant."""
    return set(_encoded(Spec))


def _encoded(spec: type[Spec]) -> Iterator[str]:
    yield from spec.__struct_encode_fields__
    for part in spec.__subclasses__():
        yield from _encoded(part)
