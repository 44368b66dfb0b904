"""A pool with the classes that it serves, in the terms of the core: names resolved, durations in seconds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path

from tempo_api.manifest.errors import ManifestError, did_you_mean
from tempo_api.manifest.read import Manifest, load_manifests
from tempo_api.manifest.rules import duration_s, given_objectives
from tempo_api.manifest.spec import ClassRef, SLOClassManifest, TempoPoolManifest, TempoPoolSpec
from tempo_core.slo import GainRule, Objectives, SLOClass
from tempo_core.snapshot import Settings


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
            promise_value=scheduler.promise_value,
            patience_s=duration_s(where, "spec.scheduler.patience", scheduler.patience),
            fairness=scheduler.fairness,
        ),
        replicas=_replicas(pool.spec),
    )


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
    """The class that a manifest declares, in seconds; `weight`, if given, replaces its own."""
    where, spec = f"SLOClass {manifest.metadata.name}", manifest.spec
    given = given_objectives(spec.objectives)
    seconds = {key: duration_s(where, f"spec.objectives.{key}", text) for key, text in given.items()}
    gain, queue_time = spec.gain, spec.overload.max_queue_time
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
            decay=inf if gain.decay == "hard" else float(gain.decay),
        ),
        max_queue_time_s=inf if queue_time is None else duration_s(where, "spec.overload.maxQueueTime", queue_time),
        overload=spec.overload.action,
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
        if ref.name not in declared:
            path = f"spec.classes[{index}].name"
            raise ManifestError(where, path, f"there is no SLOClass {ref.name!r}{did_you_mean(ref.name, declared)}")
        classes[ref.name] = slo_class(declared[ref.name], ref.weight)
    return classes


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
