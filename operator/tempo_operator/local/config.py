"""The configuration of a running pool: what the user's manifests say, with the command line's wishes.

Every part of the pool reads one compiled file and reloads it when it changes. It holds one pool and the classes, so
that no part needs to know about other pools or options of `tempo up`. Classes and scheduler settings can change while
the pool runs; whatever decides which processes there are, and how they are started, can't.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tempo_api.manifest import ManifestError, Pool, build_pool, load_manifests

FIXED: Final = (
    *("model", "servedModelName", "replicas", "autoscaling", "engine", "history"),
    *("router.auth", "router.tls", "router.accessLog"),
)
"""The fields of a pool's `spec` that only a restart of `tempo up` can change."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asks for in place of the manifests' own; None: nothing."""

    pool: str | None = None
    model: str | None = None
    replicas: int | None = None
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A compiled configuration."""

    text: str
    """YAML: one TempoPool and its classes."""
    pool: Pool
    spec: Mapping[str, Any]
    """The pool's `spec` as written."""


def read_config(source: Path, wishes: Wishes) -> Config:
    """The configuration that the manifests in `source` and `wishes` make.

    Raises:
        ManifestError: for a file that can't be read or manifests that can't be used.

    """
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        raise ManifestError(str(source), "", f"can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ManifestError(str(source), "", f"is not text in UTF-8: {error}") from error
    return compile_config(text, source.name, wishes)


def compile_config(text: str, source: str, wishes: Wishes) -> Config:
    """The same of a file's text; `source` begins every error.

    Raises:
        ManifestError: where the manifests can't be used, with or without the wishes.

    """
    try:
        chosen = build_pool(load_manifests(text), wishes.pool)
        documents = [d for d in yaml.safe_load_all(text) if d is not None and _is_of(chosen.name, d)]
        _put_in(wishes, _spec(documents))
        return _config(documents)
    except ManifestError as error:
        where = ": ".join(part for part in (source, error.where) if part)
        raise ManifestError(where, error.path, error.problem) from error


def keep_fixed(new: Config, running: Config) -> tuple[Config, list[str]]:
    """`new` as far as the running pool can follow it, and the paths of the fields that it can't."""
    changed = [path for path in FIXED if _get(new.spec, path) != _get(running.spec, path)]
    documents = list(yaml.safe_load_all(new.text))
    for path in changed:
        _put(_spec(documents), path, _get(running.spec, path))
    return _config(documents), [f"spec.{path}" for path in changed]


def write_atomically(path: Path, text: str) -> None:
    """Replace the file, so that a reader sees all of the old text or all of the new."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)  # noqa: PTH105  # the atomic one


def _config(documents: list[dict[str, Any]]) -> Config:
    text = yaml.safe_dump_all(documents, sort_keys=False)
    return Config(text, build_pool(load_manifests(text)), _spec(documents))


def _get(spec: Mapping[str, Any], path: str) -> Any:
    """A field by its dotted path; None where it, or what it stands in, is absent."""
    found: Any = spec
    for name in path.split("."):
        found = (found or {}).get(name)
    return found


def _put(spec: dict[str, Any], path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        spec[parent] = spec.get(parent) or {}
        spec = spec[parent]
    spec[name] = value


def _put_in(wishes: Wishes, spec: dict[str, Any]) -> None:
    if wishes.model is not None:
        spec["model"] = wishes.model
    if wishes.replicas is not None:
        spec.pop("autoscaling", None)
        spec["replicas"] = wishes.replicas
    if wishes.policy is not None:
        spec["scheduler"] = {**spec.get("scheduler", {}), "policy": wishes.policy}


def _is_of(pool: str, document: dict[str, Any]) -> bool:
    return bool(document["kind"] != "TempoPool" or document["metadata"]["name"] == pool)


def _spec(documents: list[dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = next(document["spec"] for document in documents if document["kind"] == "TempoPool")
    return spec
