"""Who is compared, and how each is started: one backend, loopback only, no telemetry, metrics that nobody scrapes.

Each command is what the router's own documentation says, with its defaults; only addresses and log levels are ours.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, version
from pathlib import Path
from typing import Any, Final

import orjson

from tempo_bench.pool import tempo
from tempo_bench.routers.load import HOST

OURS: Final = "tempo"
BARE: Final = "aiohttp"
DIRECT: Final = "direct"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a router runs: its ports, what it is put in front of, and a folder of its own."""

    port: int
    metrics_port: int
    backend_url: str
    model: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Contender:
    """A router to compare.

    `command` makes its command line, after `files` (text by name) have been written to the place's folder.
    """

    name: str
    version: str
    command: Callable[[Place], list[str]]
    files: Callable[[Place], Mapping[str, str]] = lambda _: {}
    environment: Mapping[str, str] = field(default_factory=dict)


def ours() -> list[Contender]:
    """The bare aiohttp pass-through, and Tempo's router."""
    return [
        Contender(BARE, version("aiohttp"), _passthrough),
        Contender(OURS, version("tempo-serving"), _tempo, files=lambda place: {"pool.yaml": _manifest(place)}),
    ]


def installed(folder: Path) -> tuple[list[Contender], list[str]]:
    """(the rivals in this virtual environment, the packages that it lacks)."""
    versions = {package: _version(folder, package) for package in _RIVALS}
    found = [
        contender
        for package, make in _RIVALS.items()
        if (known := versions[package])
        for contender in make(folder / "bin", known)
    ]
    return found, [package for package, known in versions.items() if known is None]


def how_to_install(folder: Path, packages: list[str]) -> str:
    """What to type to get the missing rivals."""
    extras = {"litellm": "'litellm[proxy]'"}
    names = " ".join(extras.get(package, package) for package in packages)
    return f"python3 -m venv {folder}\n{folder}/bin/python -m pip install -c requirements/rivals.txt {names}"


def _passthrough(place: Place) -> list[str]:
    return [sys.executable, "-m", "tempo_bench.passthrough", str(place.port), place.backend_url]


def _tempo(place: Place) -> list[str]:
    where = ("--config", str(place.folder / "pool.yaml"), "--host", HOST, "--port", str(place.port))
    return tempo("router", *where, "--replica", f"r0={place.backend_url}")


def _manifest(place: Place) -> str:
    """A pool of three classes; its engine has room for every case, so that nothing is measured but the router."""
    objectives: dict[str, tuple[str, dict[str, str]]] = {
        "chat": ("Latency", {"ttft": "2s", "tbt": "250ms"}),
        "tool": ("Deadline", {"ttlt": "15s"}),
        "agent": ("Collective", {"perStage": "10s"}),
    }
    classes = [
        _object("SLOClass", name, {"pattern": pattern, "objectives": targets, "default": name == "chat"})
        for name, (pattern, targets) in objectives.items()
    ]
    pool = {
        "model": place.model,
        "replicas": 1,
        "router": {"maxConcurrentRequests": 65_536},
        "engine": {"args": ["--max-num-seqs=4096"]},
    }
    # JSON is YAML.
    return "\n---\n".join(orjson.dumps(part).decode() for part in (*classes, _object("TempoPool", "bench", pool)))


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "serving.tempo.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _vllm_routers(programs: Path, known: str) -> list[Contender]:
    def command(policy: str) -> Callable[[Place], list[str]]:
        return lambda place: [
            str(programs / "vllm-router"),
            *("--host", HOST, "--port", str(place.port)),
            *("--worker-urls", place.backend_url, "--policy", policy),
            *("--prometheus-host", HOST, "--prometheus-port", str(place.metrics_port)),
            *("--log-level", "warning"),
        ]

    policies = ("round_robin", "cache_aware")
    return [Contender(f"vllm-router {policy}", known, command(policy)) for policy in policies]


def _smg(programs: Path, known: str) -> list[Contender]:
    def command(place: Place) -> list[str]:
        return [
            *(str(programs / "smg"), "launch"),
            *("--host", HOST, "--port", str(place.port)),
            *("--worker-urls", place.backend_url, "--policy", "cache_aware"),
            *("--prometheus-host", HOST, "--prometheus-port", str(place.metrics_port)),
            *("--log-level", "warn"),
        ]

    return [Contender("smg cache_aware", known, command)]


_LITELLM_OFFLINE: Final = {
    **{
        f"LITELLM_LOCAL_{what}": "True"
        for what in ("MODEL_COST_MAP", "ANTHROPIC_BETA_HEADERS", "POLICY_TEMPLATES", "AUTOROUTER_PRESETS", "BLOG_POSTS")
    },
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # on loopback, and no other router checks keys here
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "DISABLE_ADMIN_UI": "True",
}
"""What it would fetch from the network at its start comes from its package instead."""


def _litellm(programs: Path, known: str) -> list[Contender]:
    def command(place: Place) -> list[str]:
        where = ("--host", HOST, "--port", str(place.port), "--config", str(place.folder / "litellm.yaml"))
        return [str(programs / "litellm"), *where, "--num_workers", "1"]

    def files(place: Place) -> dict[str, str]:
        target = {"model": f"openai/{place.model}", "api_base": f"{place.backend_url}/v1", "api_key": "none"}
        config = {
            "model_list": [{"model_name": place.model, "litellm_params": target}],
            "litellm_settings": {"telemetry": False},
        }
        return {"litellm.yaml": orjson.dumps(config).decode()}

    return [Contender("litellm", known, command, files, _LITELLM_OFFLINE)]


_RIVALS: Final[dict[str, Callable[[Path, str], list[Contender]]]] = {
    "vllm-router": _vllm_routers,
    "smg": _smg,
    "litellm": _litellm,
}
"""By package."""


def _version(folder: Path, package: str) -> str | None:
    """A package's version in a virtual environment, or None if it lacks it."""
    paths = [str(path) for path in folder.glob("lib/python3*/site-packages")]
    found = next(iter(Distribution.discover(name=package, path=paths)), None)
    return found.version if found else None
