"""What the operator knows of the cluster: the newest version that it saw of each object.

Watches bring changes as they happen, answers to the operator's own writes are known before their event arrives, and a
list now and then drops what vanished while a watch was cut: kopf lists again, but does not say what is missing.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from tempo_operator.kinds import POOL, SLO_CLASS, Kind
from tempo_operator.kube import Document

PoolKey = tuple[str, str]
"""Namespace and name of a pool."""
_OWN: Final = (POOL, SLO_CLASS)


class Store:
    """Objects by kind; those that are parts of a pool also by pool.

    Args:
        pool_label: the label that names the pool of a part.

    """

    def __init__(self, pool_label: str) -> None:
        self._pool_label = pool_label
        self._objects: dict[Kind, dict[tuple[str, str], Document]] = {}
        self._parts: dict[PoolKey, dict[tuple[Kind, str], Document]] = {}

    @property
    def pools(self) -> Mapping[PoolKey, Document]:
        """All pools."""
        return self._objects.get(POOL, {})

    @property
    def classes(self) -> Mapping[str, Document]:
        """All classes by name."""
        return {name: document for (_, name), document in self._objects.get(SLO_CLASS, {}).items()}

    def parts(self, pool: PoolKey) -> Mapping[tuple[Kind, str], Document]:
        """What carries the pool's label, by kind and name."""
        return self._parts.get(pool, {})

    def pool_of(self, kind: Kind, document: Document) -> PoolKey | None:
        """The pool that the object is, or is a part of."""
        metadata = document["metadata"]
        name = metadata["name"] if kind is POOL else (metadata.get("labels") or {}).get(self._pool_label)
        return (metadata["namespace"], name) if name and kind.namespaced else None

    def put(self, kind: Kind, document: Mapping[str, Any]) -> bool:
        """Take over an object, unless a newer version of it is known; returns whether it was news."""
        known = self._objects.setdefault(kind, {})
        key, new = _key(document), _slim(document)
        old = known.get(key)
        if old is not None and _version(old) >= _version(new):
            return False
        known[key] = new
        if kind not in _OWN:
            self._move(kind, key, old, new)
        return True

    def remove(self, kind: Kind, document: Mapping[str, Any]) -> None:
        """The object is gone; another one of its name is not."""
        known, key = self._objects.get(kind, {}), _key(document)
        old = known.get(key)
        if old is not None and old["metadata"]["uid"] == document["metadata"]["uid"]:
            del known[key]
            self._move(kind, key, old, None)

    def replace(self, kind: Kind, documents: Collection[Document], version: int) -> Iterator[Document]:
        """Take over a list of all objects, as of `version`; yields what is new in it, and what is gone."""
        listed = {_key(document) for document in documents}
        for key, old in list(self._objects.get(kind, {}).items()):
            if key not in listed and _version(old) <= version:
                self.remove(kind, old)
                yield old
        for document in documents:
            if self.put(kind, document):
                yield document

    def _move(self, kind: Kind, key: tuple[str, str], old: Document | None, new: Document | None) -> None:
        """Keep `_parts` in step; labels may have changed."""
        for document in (old, new):
            pool = document and self.pool_of(kind, document)
            if not pool:
                continue
            parts = self._parts.setdefault(pool, {})
            if document is new and new is not None:
                parts[kind, key[1]] = new
            else:
                parts.pop((kind, key[1]), None)
            if not parts:
                del self._parts[pool]


def _key(document: Mapping[str, Any]) -> tuple[str, str]:
    metadata = document["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def _version(document: Document) -> int:
    """Versions of one object can be compared as numbers: since 1.35 the API promises what was always so."""
    return int(document["metadata"]["resourceVersion"])


def _slim(document: Mapping[str, Any]) -> Document:
    """Without who set which field: more than half of an object, and nobody here asks."""
    metadata = {key: value for key, value in document["metadata"].items() if key != "managedFields"}
    return {**document, "metadata": metadata}
