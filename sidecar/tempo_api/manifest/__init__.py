"""SLOClass and TempoPool, parsed: the one form that every part of Tempo reads.

`tempo up`, the operator, the router, the sidecar and the scheduler plug-in all read the same manifests, from a file of
YAML documents or from the API server. Parsing is strict: an unknown field, a value out of range or objectives that do
not fit the pattern is one `ManifestError`, whose text names the object, the field's path and the remedy.

=============  ================================================================================
`spec`         the manifests, field by field: the Python side of the schemas in `crds/`
`rules`        what a field's type can't say: the Python side of the schemas' CEL rules
`read`         documents in, manifests out
`pool`         a pool with the classes that it serves, checked against each other, in seconds
`errors`       `ManifestError`
=============  ================================================================================

What the API server accepts by its schema is what is accepted here, and the other way round; a test proves it.
"""

from tempo_api.manifest.errors import ManifestError
from tempo_api.manifest.pool import Pool, build_pool, load_pool, slo_class
from tempo_api.manifest.read import Manifest, dump_manifests, load_manifests, parse_manifest
from tempo_api.manifest.spec import (
    API_VERSION,
    EngineSpec,
    SLOClassManifest,
    SLOClassSpec,
    TempoPoolManifest,
    TempoPoolSpec,
)

__all__ = [
    "API_VERSION",
    "EngineSpec",
    "Manifest",
    "ManifestError",
    "Pool",
    "SLOClassManifest",
    "SLOClassSpec",
    "TempoPoolManifest",
    "TempoPoolSpec",
    "build_pool",
    "dump_manifests",
    "load_manifests",
    "load_pool",
    "parse_manifest",
    "slo_class",
]
