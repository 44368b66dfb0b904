"""The ConfigMap that every part of a pool reads, and follows without a restart."""

from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from msgspec.structs import replace

from tempo_api.manifest import EngineSpec, Manifest, Pool, SLOClassManifest, TempoPoolManifest, dump_manifests
from tempo_api.manifest.spec import Metadata, RouterSpec, TempoPoolSpec
from tempo_operator.manifests.names import CONFIG_KEY, REPLICAS_KEY, Names
from tempo_operator.manifests.pods import metadata


def config_map(
    names: Names, pool: Pool, manifest: TempoPoolManifest, classes: Iterable[SLOClassManifest], replicas: int
) -> dict[str, Any]:
    """The pool with the classes that it serves, and where its replicas' sidecars are."""
    served = sorted((c for c in classes if c.metadata.name in pool.classes), key=lambda c: c.metadata.name)
    documents: list[Manifest] = [replace(c, metadata=Metadata(name=c.metadata.name), status=None) for c in served]
    documents.append(_slim(manifest))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(names.config, names.namespace),
        "data": {
            CONFIG_KEY: dump_manifests(documents),
            REPLICAS_KEY: yaml.safe_dump(replica_urls(names, replicas), sort_keys=False),
        },
    }


def replica_urls(names: Names, replicas: int) -> Mapping[str, str]:
    """Where the sidecar of each replica listens, by the replica's name."""
    return {names.engine_pod(ordinal): names.sidecar_url(ordinal) for ordinal in range(replicas)}


def _slim(manifest: TempoPoolManifest) -> TempoPoolManifest:
    """The pool without what only pods have: a part need not reload for it, nor see what an environment holds."""
    spec = manifest.spec
    default = RouterSpec()
    router = replace(
        spec.router,
        replicas=default.replicas,
        service=default.service,
        auth=None,
        tls=None,
        access_log=False,
        resources=None,
    )
    slim = replace(
        spec,
        replicas=None,
        autoscaling=None,
        engine=EngineSpec(kind=spec.engine.kind),
        router=router,
        history=TempoPoolSpec(model=spec.model).history,
    )
    return replace(manifest, metadata=Metadata(name=manifest.metadata.name), spec=slim, status=None)
