"""A pool as Kubernetes objects."""

from collections.abc import Iterable, Iterator
from typing import Any

from tempo_api.manifest import Pool, SLOClassManifest, TempoPoolManifest, build_pool
from tempo_operator.manifests import guards
from tempo_operator.manifests.config import config_map
from tempo_operator.manifests.engines import engine_service, engine_set
from tempo_operator.manifests.names import Component, Names, labels
from tempo_operator.manifests.options import Options
from tempo_operator.manifests.router import router_deployment, router_service


def pool_objects(
    pool: TempoPoolManifest, classes: Iterable[SLOClassManifest], options: Options, *, replicas: int | None = None
) -> list[dict[str, Any]]:
    """Everything that `pool` is made of, in the order in which to apply it: what pods need comes before them.

    Whoever applies the objects makes the pool their owner.

    Args:
        pool: the pool.
        classes: those that are declared; the pool takes the ones that it lists, or all.
        options: the operator's.
        replicas: how many engines, where something other than the manifest decides.

    Raises:
        ManifestError: where pool and classes don't fit each other.

    """
    classes = list(classes)
    checked = build_pool([pool, *classes])
    names = Names(pool.metadata.name, pool.metadata.namespace or "default")
    engines = checked.replicas if replicas is None else replicas
    config = config_map(names, checked, pool, classes, engines)
    return [_labelled(item, names.pool, part) for part, item in _parts(names, checked, options, engines, config)]


def _parts(
    names: Names, pool: Pool, options: Options, engines: int, config: dict[str, Any]
) -> Iterator[tuple[Component, dict[str, Any]]]:
    yield "config", config
    yield "engine", guards.service_account(names, names.engines)
    yield "router", guards.service_account(names, names.router)
    if options.network_policy:
        yield "engine", guards.engine_policy(names, options)
        yield "router", guards.router_policy(names, pool)
    yield "engine", engine_service(names)
    yield "router", router_service(names, pool)
    yield "engine", guards.disruption_budget(names, names.engines, "engine")
    yield "router", guards.disruption_budget(names, names.router, "router")
    yield "engine", engine_set(names, pool, options, engines)
    yield "router", router_deployment(names, pool, options)
    if options.pod_monitor:
        yield "router", guards.pod_monitor(names, pool)


def _labelled(item: dict[str, Any], pool: str, component: Component) -> dict[str, Any]:
    return {**item, "metadata": {**item["metadata"], "labels": labels(pool, component)}}
