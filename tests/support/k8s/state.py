"""What the test API server keeps: objects with uid, resourceVersion and generation, owners of fields, and a history.

Like a real API server in what the operator relies on: a write that changes nothing moves no version, stale writes are
refused, /status and the rest can't be written through each other, dependents go with their owner, and what a workload
or Service leaves out is filled in. Unlike one: nothing is validated, and who may do what is not asked.
"""

import copy
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime

import jsonpatch

from support.k8s.defaults import defaulted
from support.k8s.merge import ConflictError, apply, changed, keyed, leaves

_WITHOUT_STATUS = {"configmaps", "serviceaccounts", "roles", "rolebindings", "leases", "events", "secrets"}


class RefusalError(Exception):
    """An answer other than success."""

    def __init__(self, code, reason, message):
        self.code, self.reason = code, reason
        super().__init__(message)


@dataclass(frozen=True)
class Ref:
    """One resource, and which of its objects."""

    group: str
    version: str
    plural: str
    namespace: str | None = None
    name: str | None = None


@dataclass
class Change:
    """One step of the history."""

    version: int
    type: str
    ref: Ref
    old: dict | None
    new: dict


@dataclass
class State:
    """All of it."""

    version: int = 100
    objects: dict[Ref, dict] = field(default_factory=dict)
    owners: dict[Ref, dict[str, set]] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)

    def get(self, ref: Ref) -> dict:
        if ref not in self.objects:
            raise RefusalError(404, "NotFound", f'{ref.plural} "{ref.name}" not found')
        return self.objects[ref]

    def create(self, ref: Ref, document: dict, manager: str) -> dict:
        document = copy.deepcopy(document)
        metadata = document.setdefault("metadata", {})
        name = metadata.get("name") or metadata.get("generateName", "") + uuid.uuid4().hex[:5]
        ref = Ref(ref.group, ref.version, ref.plural, ref.namespace, name)
        if ref in self.objects:
            raise RefusalError(409, "AlreadyExists", f'{ref.plural} "{name}" already exists')
        metadata.pop("generateName", None)
        if ref.plural not in _WITHOUT_STATUS:
            document.pop("status", None)
        metadata |= {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": _now(), "generation": 1}
        if ref.namespace:
            metadata["namespace"] = ref.namespace
        self.owners[ref] = {manager: {path for path, _ in leaves(keyed(document))}}
        return self._store("ADDED", ref, None, defaulted(ref.plural, document))

    def write(self, ref: Ref, sub: str | None, document: dict, manager: str) -> dict:
        """Replace an object, or its status."""
        old = self.get(ref)
        claimed = document.get("metadata", {})
        if claimed.get("resourceVersion", old["metadata"]["resourceVersion"]) != old["metadata"]["resourceVersion"]:
            raise RefusalError(409, "Conflict", "the object has been modified")
        new = self._merge_parts(ref, sub, old, copy.deepcopy(document))
        mine = changed(old, new)
        for paths in self.owners[ref].values():
            paths.difference_update(mine)
        self.owners[ref].setdefault(manager, set()).update(mine)
        return self._finish(ref, old, new)

    def apply(self, ref: Ref, sub: str | None, document: dict, manager: str, *, force: bool) -> dict:
        """Server-side apply; creates what is not there."""
        uid = document.get("metadata", {}).get("uid")
        if ref not in self.objects:
            if sub:
                raise RefusalError(404, "NotFound", f'{ref.plural} "{ref.name}" not found')
            if uid:
                raise RefusalError(409, "Conflict", "uid mismatch: the object is gone")
            return self.create(ref, document, manager)
        old = self.objects[ref]
        if uid and uid != old["metadata"]["uid"]:
            raise RefusalError(409, "Conflict", "uid mismatch")
        entry = f"{manager}/{sub}" if sub else manager
        wanted = {"status": document["status"]} if sub else {k: v for k, v in document.items() if k != "status"}
        try:
            merged, owners = apply(old, wanted, self.owners[ref], entry, force=force)
        except ConflictError as error:
            raise RefusalError(409, "Conflict", str(error)) from error
        self.owners[ref] = owners
        return self._finish(ref, old, self._merge_parts(ref, sub, old, merged))

    def patch(self, ref: Ref, sub: str | None, patch: object, manager: str) -> dict:
        """Merge patch (a dict) or JSON patch (a list)."""
        old = copy.deepcopy(self.get(ref))
        if isinstance(patch, list):
            try:
                new = jsonpatch.apply_patch(old, patch)
            except jsonpatch.JsonPatchException as error:
                raise RefusalError(422, "Invalid", f"the patch does not fit: {error}") from error
        else:
            new = _merge_patch(old, patch)
        return self.write(ref, sub, new, manager)

    def delete(self, ref: Ref, uid: str | None = None) -> dict:
        old = self.get(ref)
        if uid and uid != old["metadata"]["uid"]:
            raise RefusalError(409, "Conflict", "uid mismatch")
        if old["metadata"].get("finalizers"):
            marked = {**old, "metadata": {**old["metadata"], "deletionTimestamp": _now()}}
            return self._finish(ref, old, marked)
        self._remove(ref)
        return old

    def since(self, version: int) -> list[Change]:
        return [change for change in self.history if change.version > version]

    def _merge_parts(self, ref: Ref, sub: str | None, old: dict, new: dict) -> dict:
        """What may be written through this door: the status, the scale, or everything but the status."""
        if sub == "status":
            return {**old, "status": new.get("status", {})}
        if ref.plural not in _WITHOUT_STATUS:
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
        fixed = ("uid", "creationTimestamp", "generation", "resourceVersion", "namespace", "name", "deletionTimestamp")
        kept = {key: old["metadata"][key] for key in fixed if key in old["metadata"]}
        return {**new, "metadata": {**new["metadata"], **kept}}

    def _finish(self, ref: Ref, old: dict, new: dict) -> dict:
        new = defaulted(ref.plural, new)
        if new == old:
            return old
        if _spec(new) != _spec(old):
            new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
        stored = self._store("MODIFIED", ref, old, new)
        if stored["metadata"].get("deletionTimestamp") and not stored["metadata"].get("finalizers"):
            self._remove(ref)
        return stored

    def _store(self, type_: str, ref: Ref, old: dict | None, new: dict) -> dict:
        self.version += 1
        new = {**new, "metadata": {**new["metadata"], "resourceVersion": str(self.version)}}
        self.objects[ref] = new
        self.history.append(Change(self.version, type_, ref, old, new))
        return new

    def _remove(self, ref: Ref) -> None:
        old = self.objects.pop(ref)
        del self.owners[ref]
        self.version += 1
        gone = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.version)}}
        self.history.append(Change(self.version, "DELETED", ref, old, gone))
        uid = old["metadata"]["uid"]
        for dependent, document in list(self.objects.items()):
            references = document["metadata"].get("ownerReferences", [])
            if any(owner["uid"] == uid for owner in references) and dependent in self.objects:
                self._remove(dependent)


def _spec(document: dict) -> dict:
    return {key: value for key, value in document.items() if key not in {"metadata", "status"}}


def _merge_patch(old: object, patch: object) -> object:
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_patch(merged.get(key), value)
    return merged


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
