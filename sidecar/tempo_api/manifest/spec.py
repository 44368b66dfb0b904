"""The manifests, field by field, as written: the Python side of the schemas in `crds/`.

A new field comes in both places, with the same name, type, bounds and default. Every string, list and map is bounded,
for the API server refuses rules (CEL) over anything that isn't. Only what pods alone understand is taken as it is.
"""

from typing import Annotated, Any, Final, Literal

import msgspec

from tempo_api.durations import DURATION_PATTERN
from tempo_core.slo import Overload, Pattern

API_VERSION: Final = "serving.tempo.dev/v1alpha1"

POOL_NAME: Final = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?\Z"
"""Short enough for the names of the pool's pods and their revisions, and good for a Service."""
CLASS_NAME: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z"
_DECAY: Final = r"^(hard|[0-9]{1,2}(\.[0-9]{1,4})?)\Z"
_PORT: Final = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HTTP_URL: Final = rf"^https?://[A-Za-z0-9.-]+(:{_PORT})?(/[!-~]*)?\Z"
_QUANTITY: Final = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?\Z"

Weight = Annotated[float, msgspec.Meta(gt=0, le=1000)]
TokenGain = Annotated[float, msgspec.Meta(ge=0, le=1000)]
Decay = Annotated[int, msgspec.Meta(ge=1, le=16)] | Annotated[str, msgspec.Meta(pattern=_DECAY, max_length=8)]
"""As Kubernetes writes numbers that may be words: a whole number, or a string ("0.5", hard)."""
Quantity = int | Annotated[str, msgspec.Meta(pattern=_QUANTITY, max_length=32)]
Duration = Annotated[str, msgspec.Meta(max_length=32, extra_json_schema={"pattern": DURATION_PATTERN})]
"""Its pattern is left to `rules`, which says more about what is wrong than a pattern can."""
Name = Annotated[str, msgspec.Meta(pattern=CLASS_NAME, max_length=63)]
ObjectName = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
Opaque = dict[str, Any]


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True, omit_defaults=True):
    """A part of a manifest: an unknown field is an error."""


class ObjectivesSpec(Spec, frozen=True):
    """`SLOClass.spec.objectives`."""

    ttft: Duration | None = None
    tbt: Duration | None = None
    ttlt: Duration | None = None
    end_to_end: Duration | None = None
    per_stage: Duration | None = None


class GainSpec(Spec, frozen=True):
    """`SLOClass.spec.gain`; what a token is worth, and the exponent by which that fades when late."""

    weight: Weight = 1.0
    input_token: TokenGain = 1.0
    output_token: TokenGain = 2.0
    decay: Decay = 1


class OverloadSpec(Spec, frozen=True):
    """`SLOClass.spec.overload`; what happens to requests that can't be served in time."""

    max_queue_time: Duration | None = None
    action: Overload = Overload.QUEUE


class SLOClassSpec(Spec, frozen=True):
    """`SLOClass.spec`."""

    pattern: Pattern
    objectives: ObjectivesSpec = ObjectivesSpec()
    gain: GainSpec = GainSpec()
    overload: OverloadSpec = OverloadSpec()
    default: bool = False


class EnvVar(Spec, frozen=True):
    """An entry of `engine.env`, as in a container."""

    name: ObjectName
    value: Annotated[str, msgspec.Meta(max_length=32768)] | None = None
    value_from: Opaque | None = None


class Resources(Spec, frozen=True):
    """What a container asks for and may use, by resource."""

    limits: Annotated[dict[str, Quantity], msgspec.Meta(max_length=16)] = {}
    requests: Annotated[dict[str, Quantity], msgspec.Meta(max_length=16)] = {}


class Toleration(Spec, frozen=True):
    """An entry of `engine.tolerations`, as in a pod."""

    key: Annotated[str, msgspec.Meta(max_length=317)] | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: Annotated[str, msgspec.Meta(max_length=63)] | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """What Tempo reads of an entry of `engine.volumes`; the rest goes to the pod as it is."""

    name: Name


class VolumeMount(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What Tempo reads of an entry of `engine.volumeMounts`; the rest goes to the container as it is."""

    name: Name
    mount_path: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class EngineSpec(Spec, frozen=True):
    """`TempoPool.spec.engine`."""

    kind: Literal["VLLM", "Simulated"] = "VLLM"
    image: Annotated[str, msgspec.Meta(min_length=1, max_length=512)] | None = None
    args: Annotated[list[Annotated[str, msgspec.Meta(max_length=4096)]], msgspec.Meta(max_length=256)] = []
    env: Annotated[list[EnvVar], msgspec.Meta(max_length=128)] = []
    resources: Resources | None = None
    tensor_parallel_size: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    node_selector: Annotated[dict[str, Annotated[str, msgspec.Meta(max_length=63)]], msgspec.Meta(max_length=32)] = {}
    tolerations: Annotated[list[Toleration], msgspec.Meta(max_length=32)] = []
    volumes: Annotated[list[Opaque], msgspec.Meta(max_length=32)] = []
    volume_mounts: Annotated[list[Opaque], msgspec.Meta(max_length=32)] = []


class SchedulerSpec(Spec, frozen=True):
    """`TempoPool.spec.scheduler`."""

    policy: Literal["tempo", "fcfs", "priority"] = "tempo"
    length_quantile: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.95
    frame_steps: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 20
    patience: Duration = "30s"
    promise_value: Annotated[float, msgspec.Meta(ge=0, le=100)] = 1.0
    preempt_margin: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.2
    fairness: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


class ClassRef(Spec, frozen=True):
    """An entry of `TempoPool.spec.classes`; a weight given here replaces the class's own in this pool."""

    name: Name
    weight: Weight | None = None


class SecretRef(Spec, frozen=True):
    """A Secret in the pool's namespace."""

    name: ObjectName
    key: ObjectName | None = None


class SecretSource(Spec, frozen=True):
    """Where a secret comes from."""

    secret_ref: SecretRef


class SecretName(Spec, frozen=True):
    """A Secret in the pool's namespace whose type says what its keys are."""

    name: ObjectName


class TLSSource(Spec, frozen=True):
    """Where a certificate and its key come from: a Secret of type kubernetes.io/tls."""

    secret_ref: SecretName


class RouterService(Spec, frozen=True):
    """`TempoPool.spec.router.service`; the Service that clients use."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 80
    annotations: Annotated[dict[str, Annotated[str, msgspec.Meta(max_length=4096)]], msgspec.Meta(max_length=64)] = {}


class TracingSpec(Spec, frozen=True):
    """`TempoPool.spec.router.tracing`."""

    endpoint: Annotated[str, msgspec.Meta(pattern=_HTTP_URL, max_length=512)]
    sample_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0


class RouterSpec(Spec, frozen=True):
    """`TempoPool.spec.router`."""

    replicas: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    service: RouterService = RouterService()
    auth: SecretSource | None = None
    tls: TLSSource | None = None
    access_log: bool = False
    tracing: TracingSpec | None = None
    resources: Resources | None = None
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1, le=64 * 1024 * 1024)] = 16 * 1024 * 1024
    max_concurrent_requests: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 4096
    service_tiers: Annotated[dict[str, Name], msgspec.Meta(max_length=16)] = {}


class HistorySpec(Spec, frozen=True):
    """`TempoPool.spec.history`."""

    redis: SecretSource | None = None


class AutoscalingSpec(Spec, frozen=True):
    """`TempoPool.spec.autoscaling`."""

    max_replicas: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    min_replicas: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1


class TempoPoolSpec(Spec, frozen=True):
    """`TempoPool.spec`."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    served_model_name: Annotated[str, msgspec.Meta(min_length=1, max_length=512)] | None = None
    replicas: Annotated[int, msgspec.Meta(ge=0, le=1000)] | None = None
    autoscaling: AutoscalingSpec | None = None
    engine: EngineSpec = EngineSpec()
    scheduler: SchedulerSpec = SchedulerSpec()
    classes: Annotated[list[ClassRef], msgspec.Meta(max_length=64)] | None = None
    router: RouterSpec = RouterSpec()
    history: HistorySpec = HistorySpec()


class Metadata(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """The part of an object's metadata that Tempo reads; the rest is Kubernetes' business."""

    name: str
    namespace: str | None = None


class SLOClassManifest(Spec, frozen=True, tag_field="kind", tag="SLOClass"):
    """One SLOClass document."""

    api_version: Literal["serving.tempo.dev/v1alpha1"]
    metadata: Metadata
    spec: SLOClassSpec
    status: Opaque | None = None
    """The operator's own word; read by nobody here."""


class TempoPoolManifest(Spec, frozen=True, tag_field="kind", tag="TempoPool"):
    """One TempoPool document."""

    api_version: Literal["serving.tempo.dev/v1alpha1"]
    metadata: Metadata
    spec: TempoPoolSpec
    status: Opaque | None = None
    """The operator's own word; read by nobody here."""
