"""What Tempo costs: CPU and latency of its hops, and the time of a scheduling decision, against their budgets.

Every process is started here, on free ports of this machine: an instant stand-in for the engine, a plain aiohttp
proxy as the peer, a router and a sidecar each alone in front of the stand-in, and both in a row.
"""

import asyncio
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
from rich import box
from rich.console import Console
from rich.table import Table

from tempo_api.manifest import load_pool
from tempo_bench.hops import BUDGET_CHUNK_MS, BUDGET_REQUEST_MS, Effort, compare, measure_path
from tempo_bench.hops import Path as Hop
from tempo_bench.machine import describe
from tempo_bench.passes import BUDGET_MS, measure_passes
from tempo_bench.pool import PoolError, tempo
from tempo_bench.routers.load import HOST
from tempo_bench.routers.processes import Running, free_ports, started

_START_S: Final = 30.0
_GAP_S: Final = 0.01


def run_overhead(manifest: Path, out: Path, scale: float, console: Console) -> dict[str, Any]:
    """Measure everything, print the tables and write `out`/summary.json; returns what it holds.

    Raises:
        ManifestError: for a manifest that can't be used.
        PoolError: if one of the processes does not start.

    """
    out.mkdir(parents=True, exist_ok=True)
    model = load_pool(manifest).served_model_name
    effort = Effort() if scale >= 1.0 else Effort().scaled(scale)
    hops = []
    with _paths(manifest, out / "logs") as paths:
        for path in paths:
            console.print(f"Measuring {path.name}...")
            hops.append(asyncio.run(measure_path(path, model, effort)))
    console.print("Measuring the scheduler pass...")
    summary: dict[str, Any] = {
        "machine": describe(),
        "budgets": {"request_cpu_ms": BUDGET_REQUEST_MS, "chunk_cpu_ms": BUDGET_CHUNK_MS, "pass_ms": BUDGET_MS},
        "hops": compare(hops),
        "scheduler_pass": measure_passes(min(scale, 1.0)),
    }
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
    (out / "summary.json").write_bytes(orjson.dumps(summary, option=options) + b"\n")
    console.print(_hop_table(summary["hops"]), _pass_table(summary["scheduler_pass"]))
    console.print(f"Figures: {out / 'summary.json'}", soft_wrap=True)
    return summary


@contextmanager
def _paths(manifest: Path, logs: Path) -> Iterator[list[Hop]]:
    """All the processes, running, as ways to the stand-in."""
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:

        def start(name: str, argv: list[str], port: int) -> int:
            folder = logs / name
            folder.mkdir(exist_ok=True)
            running = stack.enter_context(started(name, argv, os.environ, folder))
            _await_ready(running, port)
            return running.process.pid

        backend, plain, alone, sidecar, front = free_ports(5)
        python = [sys.executable, "-m"]
        config = ["--config", str(manifest.resolve()), "--host", HOST]
        start("stand-in", [*python, "tempo_bench.stand_in", str(backend), str(_GAP_S)], backend)
        peer = start("passthrough", [*python, "tempo_bench.passthrough", str(plain), _url(backend)], plain)
        router = tempo("router", *config, "--port", str(alone), "--replica", f"r0={_url(backend)}")
        router_pid = start("router", router, alone)
        node = tempo("sidecar", *config, "--port", str(sidecar), "--engine-url", _url(backend))
        sidecar_pid = start("sidecar", node, sidecar)
        both = tempo("router", *config, "--port", str(front), "--replica", f"r0={_url(sidecar)}")
        both_pid = start("router-in-front", both, front)
        yield [
            Hop("direct", _url(backend)),
            Hop("passthrough", _url(plain), (peer,)),
            Hop("router", _url(alone), (router_pid,)),
            Hop("sidecar", _url(sidecar), (sidecar_pid,)),
            Hop("router + sidecar", _url(front), (both_pid, sidecar_pid)),
        ]


def _await_ready(running: Running, port: int) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and running.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{_url(port)}/readyz", timeout=2.0):  # noqa: S310  # our own process
                return
        except OSError:
            time.sleep(0.1)
    raise PoolError(f"{running.name} did not become ready:\n{running.tail()}")


def _url(port: int) -> str:
    return f"http://{HOST}:{port}"


def _hop_table(hops: list[dict[str, Any]]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Hops (budget: {BUDGET_REQUEST_MS} ms CPU a request, {BUDGET_CHUNK_MS} ms a chunk, each)",
    )
    table.add_column("path", no_wrap=True)
    headings = ("CPU ms/request", "x plain proxy", "CPU ms/chunk", "x plain proxy", "added ms, c=1", "added ms, c=16")
    for heading in headings:
        table.add_column(heading, justify="right")
    keys = (
        "request_cpu_ms", "request_cpu_ratio", "chunk_cpu_ms", "chunk_cpu_ratio", "added_c1_p50_ms", "added_c16_p50_ms",
    )  # fmt: skip
    for hop in hops:
        table.add_row(hop["path"], *("-" if hop[key] is None else f"{hop[key]:g}" for key in keys))
    return table


def _pass_table(passes: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Scheduler pass, microseconds")
    for heading in ("requests", "policy", "p50", "p99", "budget"):
        table.add_column(heading, justify="right")
    for row in passes:
        budget = BUDGET_MS.get(row["requests"])
        table.add_row(
            str(row["requests"]), row["policy"], f"{row['p50_us']:,.0f}", f"{row['p99_us']:,.0f}",
            f"{1e3 * budget:,.0f}" if budget else "-",
        )  # fmt: skip
    return table
