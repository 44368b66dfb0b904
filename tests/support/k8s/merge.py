"""Server-side apply, as far as the tests need it: who owns which field, and what an apply changes.

A document is turned into nested dicts in which the items of an associative list are entries by their key, so that
lists and maps merge alike. Everything else in a list is atomic. The real rules come from each type's schema; these are
the ones for the types that Tempo applies.
"""

from collections.abc import Iterator

_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "ports": ("containerPort", "port"),
    "ownerReferences": "uid",
    "conditions": "type",
}

Path = tuple[object, ...]


class ConflictError(Exception):
    """Fields that somebody else owns, and that are to change."""

    def __init__(self, manager: str, paths: list[Path]) -> None:
        super().__init__(f"conflict with {manager}: {', '.join('.'.join(map(str, path)) for path in paths)}")


class Items(dict):
    """An associative list."""


def keyed(value: object, field: str = "") -> object:
    """`value` with its associative lists as `Items`."""
    if isinstance(value, dict):
        return {name: keyed(item, name) for name, item in value.items()}
    if isinstance(value, list) and (key := _key(value, field)):
        return Items((("=", item[key]), keyed(item)) for item in value)
    return value


def plain(value: object) -> object:
    """The reverse."""
    if isinstance(value, Items):
        return [plain(item) for item in value.values()]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value


def leaves(value: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    """Every field that has an owner of its own."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif path:
        yield path, value


def apply(
    old: dict, wanted: dict, owners: dict[str, set[Path]], manager: str, *, force: bool
) -> tuple[dict, dict[str, set[Path]]]:
    """`old` with the fields of `wanted`, less those that `manager` applied before and wants no more; and the owners."""
    tree, new = keyed(old), dict(leaves(keyed(wanted)))
    have = dict(leaves(tree))
    for other, paths in owners.items():
        clashes = [p for p in new if p in paths and have.get(p) != new[p]] if other != manager else []
        if clashes and not force:
            raise ConflictError(other, clashes)
        owners = {**owners, other: owners[other] - set(clashes)}
    others = set().union(*(paths for other, paths in owners.items() if other != manager))
    for path in owners.get(manager, set()) - new.keys() - others:
        _remove(tree, path)
    for path, value in new.items():
        _set(tree, path, value, keyed(wanted))
    return plain(tree), {**owners, manager: set(new)}


def changed(old: dict, new: dict) -> set[Path]:
    """Fields that differ, of those that `new` has."""
    before = dict(leaves(keyed(old)))
    return {path for path, value in leaves(keyed(new)) if path not in before or before[path] != value}


def _key(items: list, field: str) -> str | None:
    keys = _KEYS.get(field)
    for key in (keys,) if isinstance(keys, str) else keys or ():
        if items and all(isinstance(item, dict) and key in item for item in items):
            return key
    return None


def _set(tree: dict, path: Path, value: object, shape: object) -> None:
    node = tree
    for name in path[:-1]:
        shape = shape[name]
        child = node.get(name)
        if not isinstance(child, dict):
            child = node[name] = Items() if isinstance(shape, Items) else {}
        node = child
    node[path[-1]] = value


def _remove(tree: dict, path: Path) -> None:
    nodes = [tree]
    for name in path[:-1]:
        child = nodes[-1].get(name)
        if not isinstance(child, dict):
            return
        nodes.append(child)
    nodes[-1].pop(path[-1], None)
    for node, name in zip(reversed(nodes[:-1]), reversed(path[:-1]), strict=True):
        if node[name] == {}:
            del node[name]
