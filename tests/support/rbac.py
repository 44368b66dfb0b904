"""What roles grant, and whether that is enough for a request."""

from collections.abc import Iterable, Mapping

Rights = Mapping[tuple[str, str], set[str]]
"""Verbs by group and resource."""

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def granted(role: dict) -> dict[tuple[str, str], set[str]]:
    """What one role grants."""
    rights: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                rights.setdefault((group, resource), set()).update(rule["verbs"])
    return rights


def bound(documents: Iterable[dict], account: dict) -> dict[str | None, dict[tuple[str, str], set[str]]]:
    """What is granted to the account, by namespace; None: everywhere. All bindings must be the account's."""
    documents = list(documents)
    roles = {
        (d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]): granted(d)
        for d in documents
        if "rules" in d
    }
    found: dict[str | None, dict[tuple[str, str], set[str]]] = {}
    for binding in (d for d in documents if "roleRef" in d):
        assert binding["subjects"] == [account]
        namespace = binding["metadata"].get("namespace")
        role = roles[binding["roleRef"]["kind"], namespace, binding["roleRef"]["name"]]
        found.setdefault(namespace, {}).update(role)
    return found


def permitted(rights: Mapping[str | None, Rights], method: str, path: str, *, watch: bool = False) -> bool:
    """Whether an API server would let the request pass; asking what there is is everybody's right."""
    parts = path.strip("/").split("/")
    group, parts = ("", parts[2:]) if parts[0] == "api" else (parts[1] if len(parts) > 1 else "", parts[3:])
    if not parts:
        return True
    namespace = None
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    resource = "/".join((parts[0], *parts[2:]))
    verb = _VERBS.get(method) or ("get" if len(parts) > 1 else "watch" if watch else "list")
    return any(verb in rights.get(where, {}).get((group, resource), ()) for where in {None, namespace})
