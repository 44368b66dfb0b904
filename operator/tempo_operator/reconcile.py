"""What to do about a pool: observed and wanted in, objects to apply and delete and a status out. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tempo_api.manifest import ManifestError, SLOClassManifest, TempoPoolManifest, build_pool, parse_manifest
from tempo_operator.conditions import Problem, Reason
from tempo_operator.drift import content, covers, digest_of, stamped
from tempo_operator.kinds import CHILDREN, STATEFUL_SET, Kind, kind_of
from tempo_operator.kube import Document

Build = Callable[..., Iterable[Mapping[str, Any]]]
"""`manifests.pool_objects` with the operator's options: pool, classes and the number of engines in, objects out."""
Parts = Mapping[tuple[Kind, str], Document]
"""By kind and name."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in this order."""

    apply: list[Document] = field(default_factory=list)
    create: list[Document] = field(default_factory=list)
    """Like `apply`, for what is not known to be there; somebody else's object may have the name."""
    delete: list[Document] = field(default_factory=list)
    drifted: list[str] = field(default_factory=list)
    """Those of `apply` that were right once and that somebody has changed, in words."""
    problem: Problem | None = None
    """Why there is nothing to do, although there may be something to wish for."""


def plan(
    pool: Document, classes: Mapping[str, Document], parts: Parts, build: Build, odd: Mapping[tuple[Kind, str], str]
) -> Plan:
    """What makes the cluster hold what the pool asks for.

    A pool that can't be understood changes nothing: what it was made of before serves on.

    Args:
        pool: as it stands in the API.
        classes: all there are, likewise.
        parts: what carries the pool's label.
        build: what a pool is made of.
        odd: contents of objects that the API stored in other words than they were applied with.

    """
    engines = _engines(pool, parts)
    try:
        wanted = [dict(document) for document in build(*_parse(pool, classes), replicas=engines)]
    except _UnusableError as error:
        return Plan(problem=error.problem)
    except ManifestError as error:
        return Plan(problem=Problem(Reason.INVALID_SPEC, _sentence(error)))
    result, uid, names = Plan(), pool["metadata"]["uid"], set()
    for bare in wanted:
        kind, name = kind_of(bare), bare["metadata"]["name"]
        document = stamped(_shared(bare, pool), scaled_by_others=kind is STATEFUL_SET and engines is not None)
        names.add((kind, name))
        there = parts.get((kind, name))
        if there is None:
            result.create.append(document)
        elif not owned_by(there, uid):
            return Plan(problem=name_conflict(kind, name))
        elif not covers(there, document) and odd.get((kind, name)) != content(there):
            result.apply.append(document)
            if digest_of(there) == digest_of(document):
                result.drifted.append(f"{kind.name} {name}")
    owned = (key for key, part in parts.items() if key[0] in CHILDREN and owned_by(part, uid))
    result.delete.extend(parts[key] for key in owned if key not in names and not _ending(parts[key]))
    return result


def parse_class(document: Document) -> SLOClassManifest | Problem:
    """The class, or what is wrong with it."""
    try:
        manifest = parse_manifest(_essence(document))
    except ManifestError as error:
        return Problem(Reason.INVALID_SPEC, _sentence(error))
    return manifest if isinstance(manifest, SLOClassManifest) else Problem(Reason.INVALID_SPEC, "is no SLOClass")


def class_names(pool: Document) -> set[str] | None:
    """The classes that the pool lists; None: it takes all."""
    listed = (pool.get("spec") or {}).get("classes")
    return None if listed is None else {entry.get("name", "") for entry in listed}


def owned_by(document: Document, uid: str) -> bool:
    """Whether the pool with this uid is what the object belongs to."""
    return any(owner.get("uid") == uid for owner in document["metadata"].get("ownerReferences") or ())


def name_conflict(kind: Kind, name: str) -> Problem:
    """Somebody else's object is in the way."""
    text = f"{kind.name} {name} exists and is not this pool's; rename the pool, or remove that object"
    return Problem(Reason.NAME_CONFLICT, text)


class _UnusableError(Exception):
    def __init__(self, reason: Reason, message: str) -> None:
        self.problem = Problem(reason, message)
        super().__init__(message)


def _parse(pool: Document, documents: Mapping[str, Document]) -> tuple[TempoPoolManifest, list[SLOClassManifest]]:
    manifest = parse_manifest(_essence(pool))
    if not isinstance(manifest, TempoPoolManifest):
        raise ManifestError("", "kind", "is no TempoPool")
    classes = _classes(class_names(pool), documents)
    build_pool([manifest, *classes])  # whatever does not fit together
    return manifest, classes


def _classes(listed: set[str] | None, documents: Mapping[str, Document]) -> list[SLOClassManifest]:
    """Those that the pool serves, in the order of their names, so that nothing changes where nothing has changed.

    One that nobody can use is left out of a pool that takes all, and is trouble for one that asks for it.
    """
    found: list[SLOClassManifest] = []
    for name in sorted(documents if listed is None else listed):
        if name not in documents or _ending(documents[name]):
            if listed is None:
                continue
            raise _UnusableError(
                Reason.CLASS_NOT_FOUND, f"there is no SLOClass {name!r}; create it, or take it off the list"
            )
        parsed = parse_class(documents[name])
        if isinstance(parsed, SLOClassManifest):
            found.append(parsed)
        elif listed is not None:
            raise _UnusableError(Reason.INVALID_CLASS, f"SLOClass {name}: {parsed.message}")
    if not found:
        raise _UnusableError(Reason.CLASS_NOT_FOUND, "there is no SLOClass for it to serve; create at least one")
    return found


def _essence(document: Document) -> Document:
    """What a manifest holds, without what the API adds."""
    return {key: value for key, value in document.items() if key != "status"}


def _engines(pool: Document, parts: Parts) -> int | None:
    """How many engines there are to be where an autoscaler says so: as many as there are, within its limits."""
    limits = (pool.get("spec") or {}).get("autoscaling")
    if not isinstance(limits, Mapping):
        return None
    low, high = int(limits.get("minReplicas", 1)), int(limits.get("maxReplicas", 1))
    uid = pool["metadata"]["uid"]
    there = next((part for (kind, _), part in parts.items() if kind is STATEFUL_SET and owned_by(part, uid)), None)
    now = int(there["spec"].get("replicas", 1)) if there else low
    return max(low, min(now, high))


def _shared(document: Document, pool: Document) -> Document:
    """The object as a part of the pool: whoever deletes the pool deletes it."""
    metadata = pool["metadata"]
    owner = {
        "apiVersion": pool["apiVersion"],
        "kind": pool["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    own = {**document["metadata"], "namespace": metadata["namespace"], "ownerReferences": [owner]}
    return {**document, "metadata": own}


def _ending(document: Document) -> bool:
    return "deletionTimestamp" in document["metadata"]


def _sentence(error: ManifestError) -> str:
    return f"{error.path}: {error.problem}" if error.path else error.problem
