"""Pools as Kubernetes objects, and the parts of them that tests look at."""

from typing import Any

from support.manifest_cases import TAKEN, pool, slo
from tempo_api.manifest import parse_manifest
from tempo_operator.manifests import Options, pool_objects

OPTIONS = Options(image="tempo:1", engine_image="vllm:1")
CLASSES = (slo(default=True), slo("batch", pattern="BestEffort", objectives={}))
POOLS = [c for c in TAKEN if c.document["kind"] == "TempoPool"]

Object = dict[str, Any]


def made(
    name: str = "demo",
    options: Options = OPTIONS,
    declared: tuple[Object, ...] = CLASSES,
    engines: int | None = None,
    **spec: Any,
) -> list[Object]:
    """What a pool with this `spec` is made of."""
    document = pool(name, **spec)
    document["metadata"]["namespace"] = "models"
    return pool_objects(parse_manifest(document), [parse_manifest(c) for c in declared], options, replicas=engines)


def part(objects: list[Object], kind: str, name: str) -> Object:
    """One of the objects."""
    return next(o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))


def template(objects: list[Object], kind: str = "StatefulSet", name: str = "demo-engine") -> Object:
    """The pods of a workload."""
    found: Object = part(objects, kind, name)["spec"]["template"]
    return found


def containers(objects: list[Object], kind: str = "StatefulSet", name: str = "demo-engine") -> dict[str, Object]:
    """The containers of a workload's pods, init containers included, by name."""
    spec = template(objects, kind, name)["spec"]
    return {c["name"]: c for c in (*spec.get("initContainers", ()), *spec["containers"])}


def routers(objects: list[Object]) -> Object:
    """The router's container."""
    return containers(objects, "Deployment", "demo-router")["router"]


def config(objects: list[Object]) -> dict[str, str]:
    """What every part reads."""
    found: dict[str, str] = part(objects, "ConfigMap", "demo-config")["data"]
    return found
