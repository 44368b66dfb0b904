"""What a hop costs: the same requests straight to an instant backend and through each proxy in front of it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson
import psutil

from tempo_bench.client import open_session
from tempo_bench.stand_in import CHUNKS
from tempo_bench.summary import percentile

BUDGET_REQUEST_MS: Final = 0.4
BUDGET_CHUNK_MS: Final = 0.02

_MESSAGES: Final = [{"role": "user", "content": "What is the main idea behind photosynthesis? Answer briefly. " * 3}]


@dataclass(frozen=True, slots=True)
class Path:
    """A way to the backend: where it begins, and the processes on it whose CPU time is counted."""

    name: str
    url: str
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is sent: whole answers one at a time and 16 at a time, then streams."""

    single: int = 400
    batch: int = 2000
    streams: int = 64
    stream_concurrency: int = 8

    def scaled(self, factor: float) -> "Effort":
        """The same shape with fewer requests."""
        return Effort(*(max(int(n * factor), 16) for n in (self.single, self.batch, self.streams)))


async def measure_path(path: Path, model: str, effort: Effort) -> dict[str, Any]:
    """CPU milliseconds and latency of one path. CPU is user and system time of `path.pids`, together."""
    async with open_session() as session:
        await _send(session, path, model, 50, 4, stream=False)  # connections, caches
        one_cpu, one = await _measured(session, path, model, effort.single, 1, stream=False)
        many_cpu, many = await _measured(session, path, model, effort.batch, 16, stream=False)
        stream_cpu, streams = await _measured(
            session, path, model, effort.streams, effort.stream_concurrency, stream=True
        )
    chunk_ms = max(stream_cpu - many_cpu, 0.0) / CHUNKS
    return {
        "path": path.name,
        "request_cpu_ms": round(many_cpu, 4),
        "request_cpu_c1_ms": round(one_cpu, 4),
        "chunk_cpu_ms": round(chunk_ms, 5),
        "c1_p50_ms": _ms(one, 50),
        "c1_p99_ms": _ms(one, 99),
        "c16_p50_ms": _ms(many, 50),
        "c16_p99_ms": _ms(many, 99),
        "stream_p50_ms": _ms(streams, 50),
    }


def compare(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add what each path adds to the direct one, and how its CPU compares with the plain proxy's."""
    by_name = {row["path"]: row for row in rows}
    direct, peer = by_name["direct"], by_name["passthrough"]
    return [
        {
            **row,
            "added_c1_p50_ms": round(row["c1_p50_ms"] - direct["c1_p50_ms"], 3),
            "added_c16_p50_ms": round(row["c16_p50_ms"] - direct["c16_p50_ms"], 3),
            "request_cpu_ratio": _ratio(row["request_cpu_ms"], peer["request_cpu_ms"]),
            "chunk_cpu_ratio": _ratio(row["chunk_cpu_ms"], peer["chunk_cpu_ms"]),
        }
        for row in rows
    ]


async def _measured(
    session: aiohttp.ClientSession, path: Path, model: str, count: int, concurrency: int, *, stream: bool
) -> tuple[float, list[float]]:
    """(CPU milliseconds a request, latencies in seconds)."""
    before_s = _cpu_s(path.pids)
    latencies = await _send(session, path, model, count, concurrency, stream=stream)
    return 1e3 * (_cpu_s(path.pids) - before_s) / count, latencies


async def _send(
    session: aiohttp.ClientSession, path: Path, model: str, count: int, concurrency: int, *, stream: bool
) -> list[float]:
    body = orjson.dumps({"model": model, "messages": _MESSAGES, "max_tokens": CHUNKS, "stream": stream})
    latencies: list[float] = []

    async def worker(share: int) -> None:
        for _ in range(share):
            start = time.perf_counter()
            async with session.post(
                f"{path.url}/v1/chat/completions",
                data=body,
                headers={"content-type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=60.0),
            ) as response:
                response.raise_for_status()
                await response.read()
            latencies.append(time.perf_counter() - start)

    shares = [count // concurrency + (index < count % concurrency) for index in range(concurrency)]
    await asyncio.gather(*map(worker, shares))
    return latencies


def _cpu_s(pids: Sequence[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(t.user + t.system for t in times)


def _ms(latencies: Sequence[float], q: float) -> float:
    return round(1e3 * (percentile(latencies, q) or 0.0), 3)


def _ratio(ours: float, theirs: float) -> float | None:
    return round(ours / theirs, 2) if theirs else None
