"""What `tempo up` tells of a pool that is ready: to people as lines, to programs as JSON."""

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from math import inf
from pathlib import Path
from typing import Final

from tempo_api.manifest import Pool
from tempo_core.slo import SLOClass
from tempo_operator.local.parts import Part

_HEADINGS: Final = ("CLASS", "PATTERN", "OBJECTIVES", "WEIGHT")


def summary(pool: Pool, policy: str, router_url: str, folder: Path, *, keyed: bool = False) -> list[str]:
    """Lines for people: where the pool is, what it serves, and a command to try; `keyed`: by whoever has a key."""
    rows = [_HEADINGS, *(_row(slo_class, pool.default_class) for slo_class in pool.classes.values())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    body = {
        "model": pool.served_model_name,
        "messages": [{"role": "user", "content": "Why is the sky blue?"}],
        "max_tokens": 64,
    }
    header = "-H 'content-type: application/json'" + (' -H "authorization: Bearer $KEY"' if keyed else "")
    return [
        "",
        f"Ready: {router_url}/v1  (model {pool.served_model_name}, {pool.replicas} replica(s), policy {policy})",
        f"Logs:  {folder}",
        "",
        *table,
        "",
        "Try:",
        f"  curl {router_url}/v1/chat/completions {header} -d {shlex.quote(json.dumps(body))}",
        "",
    ]


def ready_facts(pool: Pool, parts: Iterable[Part], pids: Mapping[str, int], folder: Path) -> str:
    """JSON for programs: `url`, `model`, `log_dir`, `pid`, and for each of `parts` its `url` and its guard's `pid`."""
    parts = list(parts)
    facts = {
        "url": f"{parts[-1].url}/v1",
        "model": pool.served_model_name,
        "log_dir": str(folder),
        "pid": os.getpid(),
        "parts": {part.name: {"url": part.url, "pid": pids[part.name]} for part in parts},
    }
    return json.dumps(facts, indent=2)


def _row(slo_class: SLOClass, default: str) -> tuple[str, str, str, str]:
    goals = slo_class.objectives
    named = {
        "ttft": goals.ttft_s,
        "tbt": goals.tbt_s,
        "ttlt": goals.ttlt_s,
        "endToEnd": goals.end_to_end_s,
        "perStage": goals.per_stage_s,
    }
    objectives = ", ".join(f"{name} {seconds:g}s" for name, seconds in named.items() if seconds < inf)
    name = f"{slo_class.name} (default)" if slo_class.name == default else slo_class.name
    return name, slo_class.pattern.value, objectives or "none", f"{slo_class.gain.weight:g}"
