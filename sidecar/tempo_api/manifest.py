"""SLOClass and TempoPool, parsed: the one form that every part of Tempo reads.

`tempo up`, the operator, the router, the sidecar and the scheduler plug-in all read the same manifests, from a file of
YAML documents. Parsing is strict: an unknown field, a value out of range or objectives that do not fit the pattern is
one `ManifestError`, whose text names the object, the field's path and the remedy.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import yaml

from tempo_api.durations import parse_duration
from tempo_core.slo import GainRule, Objectives, Pattern, SLOClass
from tempo_core.snapshot import Settings

API_VERSION: Final = "serving.tempo.dev/v1alpha1"

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]


class ManifestError(ValueError):
    """A manifest that can't be used; its text is one line: where, what, and what to write instead."""

    def __init__(self, where: str, path: str, problem: str) -> None:
        self.where = where
        self.path = path
        self.problem = problem
        super().__init__(": ".join(part for part in (where, path, problem) if part))


class _Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    pass


class ObjectivesSpec(_Spec, frozen=True):
    """`SLOClass.spec.objectives`; durations as text."""

    ttft: str | None = None
    tbt: str | None = None
    ttlt: str | None = None
    end_to_end: str | None = None
    per_stage: str | None = None


class GainSpec(_Spec, frozen=True):
    """`SLOClass.spec.gain`; what a token is worth, and the exponent by which that fades when late."""

    weight: Positive = 1.0
    input_token: NotNegative = 1.0
    output_token: NotNegative = 2.0
    decay: Positive | Literal["hard"] = 1.0


class OverloadSpec(_Spec, frozen=True):
    """`SLOClass.spec.overload`; what happens to requests that can't be served in time."""

    max_queue_time: str | None = None
    action: Literal["Shed", "Queue", "Degrade"] = "Queue"


class SLOClassSpec(_Spec, frozen=True):
    """`SLOClass.spec`."""

    pattern: Pattern
    objectives: ObjectivesSpec = ObjectivesSpec()
    gain: GainSpec = GainSpec()
    overload: OverloadSpec = OverloadSpec()
    default: bool = False


class EngineSpec(_Spec, frozen=True):
    """`TempoPool.spec.engine`; the fields that only pods have are carried as they are."""

    kind: Literal["VLLM", "Simulated"] = "VLLM"
    image: str | None = None
    args: list[str] = []
    env: list[dict[str, Any]] = []
    resources: dict[str, Any] = {}
    tensor_parallel_size: Count = 1
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    volumes: list[dict[str, Any]] = []
    volume_mounts: list[dict[str, Any]] = []


class SchedulerSpec(_Spec, frozen=True):
    """`TempoPool.spec.scheduler`."""

    policy: Literal["tempo", "fcfs", "priority"] = "tempo"
    length_quantile: Share = 0.95
    frame_steps: Count = 20
    patience: str = "30s"
    preempt_margin: NotNegative = 0.2


class ClassRef(_Spec, frozen=True):
    """An entry of `TempoPool.spec.classes`; a weight given here replaces the class's own in this pool."""

    name: Name
    weight: Positive | None = None


class SecretRef(_Spec, frozen=True):
    """A Secret in the pool's namespace."""

    name: str
    key: str | None = None


class SecretSource(_Spec, frozen=True):
    """Where a secret comes from."""

    secret_ref: SecretRef


class RouterSpec(_Spec, frozen=True):
    """`TempoPool.spec.router`."""

    replicas: Count = 2
    service: dict[str, Any] = {}
    auth: SecretSource | None = None
    resources: dict[str, Any] = {}
    max_body_bytes: Count = 16 * 1024 * 1024
    max_concurrent_requests: Count = 4096
    service_tiers: dict[str, Name] = {}


class HistorySpec(_Spec, frozen=True):
    """`TempoPool.spec.history`."""

    redis: SecretSource | None = None


class AutoscalingSpec(_Spec, frozen=True):
    """`TempoPool.spec.autoscaling`."""

    max_replicas: Count
    min_replicas: Count = 1


class TempoPoolSpec(_Spec, frozen=True):
    """`TempoPool.spec`."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    served_model_name: str | None = None
    replicas: Annotated[int, msgspec.Meta(ge=0)] | None = None
    autoscaling: AutoscalingSpec | None = None
    engine: EngineSpec = EngineSpec()
    scheduler: SchedulerSpec = SchedulerSpec()
    classes: list[ClassRef] | None = None
    router: RouterSpec = RouterSpec()
    history: HistorySpec = HistorySpec()


class Metadata(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The part of an object's metadata that Tempo reads; the rest is Kubernetes' business."""

    name: Name
    namespace: str | None = None


class SLOClassManifest(_Spec, frozen=True, tag_field="kind", tag="SLOClass"):
    """One SLOClass document."""

    api_version: Literal["serving.tempo.dev/v1alpha1"]
    metadata: Metadata
    spec: SLOClassSpec


class TempoPoolManifest(_Spec, frozen=True, tag_field="kind", tag="TempoPool"):
    """One TempoPool document."""

    api_version: Literal["serving.tempo.dev/v1alpha1"]
    metadata: Metadata
    spec: TempoPoolSpec


Manifest = SLOClassManifest | TempoPoolManifest


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool with the classes that it serves, checked against each other."""

    name: str
    spec: TempoPoolSpec
    classes: Mapping[str, SLOClass]
    """By name, with the pool's own weights."""
    default_class: str
    settings: Settings
    replicas: int

    @property
    def served_model_name(self) -> str:
        """The name that clients put into `model`."""
        return self.spec.served_model_name or self.spec.model

    @property
    def default(self) -> SLOClass:
        """The class of a request that names none."""
        return self.classes[self.default_class]


def parse_manifest(document: object) -> Manifest:
    """One parsed YAML or JSON document as a manifest.

    Raises:
        ManifestError: naming the field's path.

    """
    where = _where(document)
    if isinstance(document, dict) and document.get("kind") not in {"SLOClass", "TempoPool"}:
        raise ManifestError(where, "kind", f"must be SLOClass or TempoPool, not {document.get('kind')!r}")
    try:
        manifest: Manifest = msgspec.convert(document, Manifest)
    except msgspec.ValidationError as error:
        raise _explain(where, str(error)) from error
    if isinstance(manifest, SLOClassManifest):
        slo_class(manifest)
    else:
        _check_pool(where, manifest.spec)
    return manifest


def load_manifests(text: str, source: str = "") -> list[Manifest]:
    """All documents of a YAML file's text. `source`, the file's name, begins every error.

    Raises:
        ManifestError: for the first document that can't be used.

    """
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise ManifestError(source, "", f"not YAML: {' '.join(str(error).split())}") from error
    try:
        return [parse_manifest(document) for document in documents]
    except ManifestError as error:
        raise ManifestError(f"{source}: {error.where}" if source else error.where, error.path, error.problem) from error


def build_pool(manifests: Iterable[Manifest], name: str | None = None) -> Pool:
    """The pool among `manifests` (the one called `name`, if there are several) with the classes that it serves.

    Raises:
        ManifestError: for a missing or second pool, an unknown or doubled class, no default or two.

    """
    manifests = list(manifests)
    pools = [m for m in manifests if isinstance(m, TempoPoolManifest) and name in {None, m.metadata.name}]
    if len(pools) != 1:
        found = ", ".join(m.metadata.name for m in pools) or "none"
        raise ManifestError("", "", f"exactly one TempoPool is needed, found {found}; name one with --pool")
    pool = pools[0]
    where = f"TempoPool {pool.metadata.name}"
    declared = _declared(manifests)
    if not declared:
        raise ManifestError(where, "", "there is no SLOClass for it to serve; declare at least one")
    classes = _served(where, pool.spec, declared)
    for tier, class_name in pool.spec.router.service_tiers.items():
        if class_name not in classes:
            path = f"spec.router.serviceTiers.{tier}"
            raise ManifestError(where, path, f"{class_name!r} is no class of this pool")
    scheduler = pool.spec.scheduler
    return Pool(
        name=pool.metadata.name,
        spec=pool.spec,
        classes=classes,
        default_class=_default_class(where, [declared[name] for name in classes]),
        settings=Settings(
            length_quantile=scheduler.length_quantile,
            preempt_margin=scheduler.preempt_margin,
            patience_s=_duration(where, "spec.scheduler.patience", scheduler.patience),
        ),
        replicas=_replicas(pool.spec),
    )


def _declared(manifests: Iterable[Manifest]) -> dict[str, SLOClassManifest]:
    declared: dict[str, SLOClassManifest] = {}
    for manifest in manifests:
        if isinstance(manifest, SLOClassManifest):
            if manifest.metadata.name in declared:
                raise ManifestError(f"SLOClass {manifest.metadata.name}", "metadata.name", "is declared twice")
            declared[manifest.metadata.name] = manifest
    return declared


def _served(where: str, spec: TempoPoolSpec, declared: Mapping[str, SLOClassManifest]) -> dict[str, SLOClass]:
    """The classes that the pool lists, or all, with the pool's own weights."""
    refs = spec.classes if spec.classes is not None else [ClassRef(name=name) for name in declared]
    classes: dict[str, SLOClass] = {}
    for index, ref in enumerate(refs):
        path = f"spec.classes[{index}].name"
        if ref.name not in declared:
            raise ManifestError(where, path, f"there is no SLOClass {ref.name!r}{_did_you_mean(ref.name, declared)}")
        if ref.name in classes:
            raise ManifestError(where, path, f"{ref.name!r} is listed twice")
        classes[ref.name] = slo_class(declared[ref.name], ref.weight)
    return classes


def load_pool(path: Path, name: str | None = None) -> Pool:
    """The pool that a manifest file declares.

    Raises:
        ManifestError: for an unreadable file or anything that `load_manifests` and `build_pool` refuse.

    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(str(path), "", f"can't be read: {error}") from error
    try:
        return build_pool(load_manifests(text, path.name), name)
    except ManifestError as error:
        if error.where.startswith(path.name):
            raise
        where = f"{path.name}: {error.where}" if error.where else path.name
        raise ManifestError(where, error.path, error.problem) from error


def slo_class(manifest: SLOClassManifest, weight: float | None = None) -> SLOClass:
    """The class that a manifest declares, in seconds; `weight`, if given, replaces its own.

    Raises:
        ManifestError: where the objectives do not fit the pattern.

    """
    where, spec = f"SLOClass {manifest.metadata.name}", manifest.spec
    given = {key: value for key, value in msgspec.to_builtins(spec.objectives).items() if value is not None}
    _check_objectives(where, spec.pattern, given)
    seconds = {key: _duration(where, f"spec.objectives.{key}", value) for key, value in given.items()}
    gain = spec.gain
    queue_time = spec.overload.max_queue_time
    return SLOClass(
        name=manifest.metadata.name,
        pattern=spec.pattern,
        objectives=Objectives(
            ttft_s=seconds.get("ttft", inf),
            tbt_s=seconds.get("tbt", inf),
            ttlt_s=seconds.get("ttlt", inf),
            end_to_end_s=seconds.get("endToEnd", inf),
            per_stage_s=seconds.get("perStage", inf),
        ),
        gain=GainRule(
            weight=gain.weight if weight is None else weight,
            input_token=gain.input_token,
            output_token=gain.output_token,
            decay=inf if gain.decay == "hard" else gain.decay,
        ),
        max_queue_time_s=inf if queue_time is None else _duration(where, "spec.overload.maxQueueTime", queue_time),
    )


_OBJECTIVES: Final[Mapping[Pattern, tuple[set[str], ...]]] = {
    Pattern.LATENCY: ({"ttft", "tbt"},),
    Pattern.DEADLINE: ({"ttlt"},),
    Pattern.COLLECTIVE: ({"endToEnd"}, {"perStage"}),
    Pattern.BEST_EFFORT: (set(),),
}


def _check_objectives(where: str, pattern: Pattern, given: Mapping[str, object]) -> None:
    allowed = _OBJECTIVES[pattern]
    if given.keys() in allowed:
        return
    wanted = " or ".join(" and ".join(sorted(names, reverse=True)) or "no objectives" for names in allowed)
    surplus = sorted(given.keys() - set.union(*allowed))
    path = f"spec.objectives.{surplus[0]}" if surplus else "spec.objectives"
    raise ManifestError(where, path, f"pattern {pattern.value} takes {wanted}")


def _check_pool(where: str, spec: TempoPoolSpec) -> None:
    _duration(where, "spec.scheduler.patience", spec.scheduler.patience)
    if spec.replicas is not None and spec.autoscaling is not None:
        raise ManifestError(where, "spec.replicas", "give replicas or autoscaling, not both")
    if spec.autoscaling and spec.autoscaling.min_replicas > spec.autoscaling.max_replicas:
        raise ManifestError(where, "spec.autoscaling.minReplicas", "is larger than maxReplicas")
    # What a manifest asks for and nothing here can do is refused: an open endpoint would be worse than none.
    not_built = {
        "spec.engine.kind": spec.engine.kind == "Simulated",
        "spec.router.auth": spec.router.auth is not None,
        "spec.history.redis": spec.history.redis is not None,
    }
    for path, asked_for in not_built.items():
        if asked_for:
            raise ManifestError(where, path, "is not supported by this version; leave it out")
    if spec.classes is not None and not spec.classes:
        raise ManifestError(where, "spec.classes", "is empty; leave it out to serve every SLOClass")


def _default_class(where: str, classes: list[SLOClassManifest]) -> str:
    defaults = [manifest.metadata.name for manifest in classes if manifest.spec.default]
    if len(defaults) > 1:
        names = " and ".join(defaults)
        raise ManifestError(
            f"SLOClass {defaults[1]}", "spec.default", f"only one class can be the default, not {names}"
        )
    if defaults:
        return defaults[0]
    if len(classes) == 1:
        return classes[0].metadata.name
    raise ManifestError(where, "spec.classes", "none of its classes is the default; set spec.default: true on one")


def _replicas(spec: TempoPoolSpec) -> int:
    if spec.autoscaling:
        return spec.autoscaling.min_replicas
    return 1 if spec.replicas is None else spec.replicas


def _duration(where: str, path: str, text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise ManifestError(where, path, str(error)) from error
    if seconds <= 0:
        raise ManifestError(where, path, "must be more than zero")
    return seconds


def _where(document: object) -> str:
    if not isinstance(document, dict):
        return "manifest"
    metadata = document.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    return f"{document.get('kind', 'manifest')} {name}".strip()


_AT: Final = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_UNKNOWN: Final = re.compile(r"^Object contains unknown field `(?P<name>.*)`$")
_MISSING: Final = re.compile(r"^Object missing required field `(?P<name>.*)`$")


def _explain(where: str, text: str) -> ManifestError:
    """Msgspec's message in our words: the path first, and a near name where a field is unknown."""
    match = _AT.match(text)
    problem, path = (match["problem"], match["path"] or "") if match else (text, "")
    if unknown := _UNKNOWN.match(problem):
        name = unknown["name"]
        return ManifestError(where, _join(path, name), f"unknown field{_did_you_mean(name, _field_names())}")
    if missing := _MISSING.match(problem):
        return ManifestError(where, _join(path, missing["name"]), "is required")
    return ManifestError(where, path, problem[:1].lower() + problem[1:])


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _field_names() -> set[str]:
    """Every field name of the API: good enough to guess what was meant."""
    return {name for spec in _Spec.__subclasses__() for name in spec.__struct_encode_fields__}


def _did_you_mean(name: str, candidates: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(candidates), n=1)
    return f"; did you mean {near[0]}?" if near else ""
