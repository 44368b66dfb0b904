"""Whether an object is as it should be. Pure.

The API server adds defaults, others add fields of their own, and both must be left alone; so an object is right when
everything that is wanted stands in it. What is wanted no more can't be seen so: for that the object carries a digest of
what was wanted when it was applied, and applying under the same field manager takes the old fields away.
"""

import hashlib
import json
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from tempo_operator.kube import Document

Key = TypeVar("Key", bound=Hashable)

_AT_ONCE: Final = 6
_EVERY_S: Final = 10.0

DIGEST: Final = "serving.tempo.dev/digest"
"""The annotation that holds it."""
_MERGE_KEYS: Final = ("mountPath", "name", "containerPort", "port", "uid", "type")
"""By what the API tells the items of a list apart; the first one that fits counts."""
_VOLATILE: Final = ("resourceVersion", "generation", "managedFields", "creationTimestamp")


def stamped(desired: Document, *, scaled_by_others: bool = False) -> Document:
    """`desired` with its digest; where others scale it, the number of its replicas is not in that."""
    metadata, wanted = desired["metadata"], desired
    if scaled_by_others:
        wanted = {**desired, "spec": {key: value for key, value in desired["spec"].items() if key != "replicas"}}
    annotations = {**metadata.get("annotations", {}), DIGEST: _digest(wanted)}
    return {**desired, "metadata": {**metadata, "annotations": annotations}}


def digest_of(document: Document) -> str | None:
    """The digest that the object carries."""
    found: str | None = (document["metadata"].get("annotations") or {}).get(DIGEST)
    return found


def content(observed: Document) -> str:
    """A digest of everything that somebody may have set, so not of the status."""
    metadata = {key: value for key, value in observed["metadata"].items() if key not in _VOLATILE}
    return _digest({**{key: value for key, value in observed.items() if key != "status"}, "metadata": metadata})


def same_version(one: Document, other: Document) -> bool:
    """Whether nothing was written between the two."""
    return bool(one["metadata"]["resourceVersion"] == other["metadata"]["resourceVersion"])


def covers(observed: Any, desired: Any) -> bool:
    """Whether everything of `desired` stands in `observed`, which may hold more."""
    if isinstance(desired, Mapping):
        if not isinstance(observed, Mapping):
            return not desired and observed is None
        return all(covers(observed.get(key), value) for key, value in desired.items())
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        return _covers_list(observed or [], desired)
    return bool(observed == desired)


class Patience(Generic[Key]):
    """How soon to put something back that others keep changing: at once for a while, then every ten seconds."""

    def __init__(self) -> None:
        self._repairs: dict[Key, deque[float]] = {}

    def wait_s(self, key: Key, now_s: float) -> float:
        """How long to wait with the next repair; 0: it is counted, and may be done now."""
        repairs = self._repairs.setdefault(key, deque(maxlen=_AT_ONCE))
        if len(repairs) == _AT_ONCE and now_s - repairs[0] < _EVERY_S * _AT_ONCE:
            wait_s = repairs[-1] + _EVERY_S - now_s
            if wait_s > 0.0:
                return wait_s
        repairs.append(now_s)
        return 0.0

    def forget(self, key: Key) -> None:
        """There is nothing left to put back."""
        self._repairs.pop(key, None)


def _covers_list(observed: Any, desired: Sequence[Any]) -> bool:
    if not isinstance(observed, Sequence) or isinstance(observed, str):
        return False
    key = next((key for key in _MERGE_KEYS if _tells_apart(desired, key) and _tells_apart(observed, key)), None)
    if key is None or not desired:
        return len(observed) == len(desired) and all(map(covers, observed, desired))
    by_key = {item[key]: item for item in observed}
    return all(covers(by_key.get(item[key]), item) for item in desired)


def _tells_apart(items: Sequence[Any], key: str) -> bool:
    values = [item.get(key) for item in items if isinstance(item, Mapping)]
    return len(values) == len(items) == len({str(value) for value in values}) and None not in values


def _digest(document: Document) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
