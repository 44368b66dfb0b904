"""One run of `tempo up`: check, compile, start, tell, follow the manifests, and end everything."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tempo_operator.local.checks import choose_ports, require_memory
from tempo_operator.local.config import Config, Wishes, read_config, write_atomically
from tempo_operator.local.display import Display
from tempo_operator.local.errors import UpError
from tempo_operator.local.follow import Follower
from tempo_operator.local.gpus import shares, visible_gpus, vllm_is_for_cpus
from tempo_operator.local.guard import adopt_orphans, end_descendants
from tempo_operator.local.models import require_vllm, resolve
from tempo_operator.local.parts import Local, Part, memory_gb, parts
from tempo_operator.local.process import describe, run_once
from tempo_operator.local.summary import ready_facts, summary
from tempo_operator.local.supervisor import Supervisor

_FOLLOW_S: Final = 0.5
_MODEL_WITHIN_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    manifests: Path
    wishes: Wishes
    port: int
    plugged: bool = True
    log_dir: Path | None = None
    engine_args: tuple[str, ...] = ()
    ready_file: Path | None = None
    keys: Path | None = None
    state_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    options: Options
    follower: Follower
    local: Local
    parts: list[Part]
    supervisor: Supervisor
    display: Display


async def run(options: Options, display: Display) -> None:
    """Run the pool until SIGINT or SIGTERM; a second one kills it.

    Raises:
        ManifestError, UpError: before the pool is ready. Nothing is left running then either.

    """
    this = _prepare(options, display)
    adopt_orphans()
    serving = asyncio.ensure_future(_serve(this))

    def stop() -> None:
        if serving.cancelling():
            this.supervisor.end_now()
        else:
            serving.cancel()
            display.settle()
            display.say("stopping; once more ends everything at once")

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        with suppress(asyncio.CancelledError):
            await serving
    finally:
        display.settle()
        await this.supervisor.end()
        end_descendants()


def _prepare(options: Options, display: Display) -> _Run:
    """Everything that can be refused before a process is started."""
    config = read_config(options.manifests, options.wishes)
    pool = config.pool
    require_vllm()
    model = resolve(pool.spec.model)
    cpu = vllm_is_for_cpus()
    require_memory(memory_gb(pool, model, cpu=cpu))
    gpus = () if cpu else visible_gpus()
    ports = choose_ports(options.port, pool.replicas)
    folder = options.log_dir or _state_folder() / f"{pool.name}-{ports.router}"
    local = Local(
        folder=folder.absolute(),
        ports=ports,
        model=model,
        python=sys.executable,
        plugged=options.plugged,
        engine_args=options.engine_args,
        keys=options.keys,
        state=options.state_dir and options.state_dir.absolute(),
        cpu=cpu,
        gpus=shares(gpus, pool.replicas, pool.spec.engine.tensor_parallel_size) if gpus else (),
    )
    made = parts(pool, local)
    _lay_out(options, local, made, config)
    follower = Follower(options.manifests, options.wishes, config, local.config_file)
    return _Run(options, follower, local, made, Supervisor(made, local.folder, display), display)


def _lay_out(options: Options, local: Local, made: list[Part], config: Config) -> None:
    """Make the folder, remove what an earlier run left in it (the rest isn't ours), and write the configuration."""
    stale = [*(local.folder / part.log_name for part in made), *local.folder.glob("engine-*.status.json")]
    try:
        local.folder.mkdir(parents=True, exist_ok=True)
        if options.ready_file is not None:
            options.ready_file.parent.mkdir(parents=True, exist_ok=True)
            stale.append(options.ready_file)
        for path in stale:
            path.unlink(missing_ok=True)
        write_atomically(local.config_file, config.text)
    except OSError as error:
        raise UpError(f"can't write {error.filename}: {error.strerror}; choose a folder with --log-dir") from error
    try:
        local.state_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UpError(f"can't write {error.filename}: {error.strerror}; choose a folder with --state-dir") from error


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "tempo"


async def _serve(this: _Run) -> None:
    """Start the pool and keep it running, until cancelled."""
    pool, folder = this.follower.config.pool, this.local.folder
    await _make_model(this)
    await this.supervisor.start()
    this.display.settle()
    policy = pool.spec.scheduler.policy if this.options.plugged else "engine"
    for line in summary(pool, policy, this.parts[-1].url, folder, keyed=this.local.keys is not None):
        this.display.say(line)
    if this.options.ready_file is not None:
        write_atomically(this.options.ready_file, ready_facts(pool, this.parts, this.supervisor.pids, folder))
    async with asyncio.TaskGroup() as group:
        group.create_task(this.supervisor.keep())
        group.create_task(_follow(this))


async def _make_model(this: _Run) -> None:
    model = this.local.model
    if model.recipe is None:
        return
    log = this.local.folder / "model.log"
    step = f"make {Path(model.source).name} (once)"
    this.display.begin(step)
    argv = (this.local.python, "-m", model.recipe, model.source)
    status = await run_once(argv, {"HF_HUB_OFFLINE": "1"}, log, _MODEL_WITHIN_S)
    if status != 0:
        raise UpError(f"making the model {describe(status)}; log: {log}", log)
    this.display.finish(step)


async def _follow(this: _Run) -> None:
    while True:
        await asyncio.sleep(_FOLLOW_S)
        for line in this.follower.poll():
            this.display.say(line)
