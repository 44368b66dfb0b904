"""What a field's type can't say: the Python side of the CEL rules in `crds/`.

    every name          a DNS label, short enough for what is called after it
    every duration      1ms to 168h
    SLOClass            objectives that fit the pattern; a decay above zero, at most 16
    TempoPool           replicas or autoscaling, and minReplicas within maxReplicas; lists without a name twice;
                        a value or a valueFrom in env; nothing in engine.args and engine.volumes that is Tempo's own

Immutable fields are the API server's business: only it knows what a pool was before.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec

from tempo_api.durations import parse_duration
from tempo_api.manifest.errors import ManifestError, explain
from tempo_api.manifest.spec import (
    CLASS_NAME,
    POOL_NAME,
    ObjectivesSpec,
    Opaque,
    SLOClassManifest,
    TempoPoolManifest,
    Volume,
    VolumeMount,
)
from tempo_core.slo import Pattern

OBJECTIVES: Final[Mapping[Pattern, tuple[set[str], ...]]] = {
    Pattern.LATENCY: ({"ttft", "tbt"},),
    Pattern.DEADLINE: ({"ttlt"},),
    Pattern.COLLECTIVE: ({"endToEnd"}, {"perStage"}),
    Pattern.BEST_EFFORT: (set(),),
}
"""The sets of objectives that each pattern takes."""

OWN_VOLUME: Final = "tempo-"
"""How the names of the volumes begin that Tempo adds to a pod."""
_OWN_ARGS: Final = re.compile(r"^--(host|port|uds|scheduler[-_]cls)(=.*)?\Z", re.DOTALL)
_SHORTEST_S: Final = 0.001
_LONGEST_S: Final = 168 * 3600.0
_LARGEST_DECAY: Final = 16.0

Entry = TypeVar("Entry", Volume, VolumeMount)


def check_class(where: str, manifest: SLOClassManifest) -> None:
    """Everything above that is said of a class.

    Raises:
        ManifestError: for the first rule that is broken.

    """
    spec = manifest.spec
    _check_name(where, manifest.metadata.name, CLASS_NAME, "at most 63 lower-case letters, digits and dashes")
    given = given_objectives(spec.objectives)
    _check_objectives(where, spec.pattern, given)
    for key, text in given.items():
        duration_s(where, f"spec.objectives.{key}", text)
    if spec.overload.max_queue_time is not None:
        duration_s(where, "spec.overload.maxQueueTime", spec.overload.max_queue_time)
    decay = spec.gain.decay
    if decay != "hard" and not 0 < float(decay) <= _LARGEST_DECAY:
        raise ManifestError(where, "spec.gain.decay", f"must be hard, or more than 0 and at most {_LARGEST_DECAY:g}")


def check_pool(where: str, manifest: TempoPoolManifest) -> None:
    """Everything above that is said of a pool.

    Raises:
        ManifestError: for the first rule that is broken.

    """
    spec, name = manifest.spec, manifest.metadata.name
    _check_name(where, name, POOL_NAME, "at most 40 lower-case letters, digits and dashes, the first a letter")
    duration_s(where, "spec.scheduler.patience", spec.scheduler.patience)
    if spec.replicas is not None and spec.autoscaling is not None:
        raise ManifestError(where, "spec.replicas", "give replicas or autoscaling, not both")
    if spec.autoscaling and spec.autoscaling.min_replicas > spec.autoscaling.max_replicas:
        raise ManifestError(where, "spec.autoscaling.minReplicas", "is larger than maxReplicas")
    if spec.classes is not None:
        if not spec.classes:
            raise ManifestError(where, "spec.classes", "is empty; leave it out to serve every SLOClass")
        _check_distinct(where, "spec.classes", "name", (ref.name for ref in spec.classes))
    _check_engine(where, manifest)


def duration_s(where: str, path: str, text: str) -> float:
    """Seconds of a duration.

    Raises:
        ManifestError: where it is none, or out of range.

    """
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise ManifestError(where, path, str(error)) from error
    if not _SHORTEST_S <= round(seconds, 9) <= _LONGEST_S:
        raise ManifestError(where, path, "must be between 1ms and 168h")
    return seconds


def given_objectives(objectives: ObjectivesSpec) -> dict[str, str]:
    """Those that are given, by the names that manifests use."""
    given: dict[str, str] = msgspec.to_builtins(objectives)
    return given


def _check_name(where: str, name: str, pattern: str, wanted: str) -> None:
    if not re.match(pattern, name):
        raise ManifestError(where, "metadata.name", f"must be {wanted}, not {name!r}")


def _check_objectives(where: str, pattern: Pattern, given: Mapping[str, object]) -> None:
    allowed = OBJECTIVES[pattern]
    if given.keys() in allowed:
        return
    wanted = " or ".join(" and ".join(sorted(names, reverse=True)) or "no objectives" for names in allowed)
    surplus = sorted(given.keys() - set.union(*allowed))
    path = f"spec.objectives.{surplus[0]}" if surplus else "spec.objectives"
    raise ManifestError(where, path, f"pattern {pattern.value} takes {wanted}")


def _check_engine(where: str, manifest: TempoPoolManifest) -> None:
    engine = manifest.spec.engine
    for index, word in enumerate(engine.args):
        if own := _OWN_ARGS.match(word):
            raise ManifestError(where, f"spec.engine.args[{index}]", f"--{own[1]} is set by Tempo; leave it out")
    _check_distinct(where, "spec.engine.env", "name", (entry.name for entry in engine.env))
    for index, entry in enumerate(engine.env):
        if entry.value is not None and entry.value_from is not None:
            raise ManifestError(where, f"spec.engine.env[{index}]", "give value or valueFrom, not both")
    volumes = _entries(where, "spec.engine.volumes", engine.volumes, Volume)
    for index, volume in enumerate(volumes):
        if volume.name.startswith(OWN_VOLUME):
            problem = f"names that begin with {OWN_VOLUME} are Tempo's own; choose another"
            raise ManifestError(where, f"spec.engine.volumes[{index}].name", problem)
    _check_distinct(where, "spec.engine.volumes", "name", (volume.name for volume in volumes))
    mounts = _entries(where, "spec.engine.volumeMounts", engine.volume_mounts, VolumeMount)
    _check_distinct(where, "spec.engine.volumeMounts", "mountPath", (mount.mount_path for mount in mounts))


def _entries(where: str, path: str, entries: list[Opaque], kind: type[Entry]) -> list[Entry]:
    """What Tempo reads of entries that are otherwise left as they are."""
    try:
        return msgspec.convert(entries, list[kind])  # type: ignore[valid-type]  # known at run time
    except msgspec.ValidationError as error:
        raise explain(where, f"{error}".replace("`$", f"`$.{path}"), ()) from error


def _check_distinct(where: str, path: str, key: str, values: Iterable[str]) -> None:
    seen = set[str]()
    for index, value in enumerate(values):
        if value in seen:
            raise ManifestError(where, f"{path}[{index}].{key}", f"{value!r} is listed twice")
        seen.add(value)
