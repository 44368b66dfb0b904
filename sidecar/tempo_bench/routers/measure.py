"""Routers take turns: in each round every case goes through every router, so that noise hits all alike."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from tempo_bench.pool import PoolError
from tempo_bench.routers.cases import Case, Plan
from tempo_bench.routers.load import Tally, connections, send
from tempo_bench.routers.processes import Running, Usage
from tempo_bench.routers.requests import Requests, Shape
from tempo_bench.summary import percentile

_LEAST_WARM_UP = 20
_WARM_UP_S = 10.0


@dataclass(frozen=True, slots=True)
class Entrant:
    """A way to the backend: through a router that runs, or straight there."""

    name: str
    version: str
    port: int
    running: Running | None = None

    def usage(self) -> Usage:
        """What the router uses now; nothing where there is none.

        Raises:
            PoolError: if it has ended.

        """
        return self.running.usage() if self.running else Usage(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn of one router. Times are milliseconds, None where nothing was answered."""

    p50_ms: float | None
    p99_ms: float | None
    first_p50_ms: float | None
    first_p99_ms: float | None
    requests_per_s: float
    cpu_ms: float | None
    """A request."""
    rss_mb: float


@dataclass(slots=True)
class Record:
    """All turns of one router at one case."""

    samples: list[Sample] = field(default_factory=list)
    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Memory:
    """What a router held before its first request and after its last."""

    before_mb: float
    after_mb: float | None
    requests: int
    errors: Counter[str]


Records = dict[tuple[str, Case], Record]


async def take_turns(entrants: Sequence[Entrant], model: str, plan: Plan, advance: Callable[[str], None]) -> Records:
    """Every round; `advance` hears of each turn before it."""
    records: Records = {(entrant.name, case): Record() for entrant in entrants for case in plan.cases}
    # Nobody always follows the same neighbour, who may be busy for a while after its turn.
    drawn = Random(0)  # noqa: S311  # reproducible on purpose
    for number in range(plan.rounds):
        for case in plan.cases:
            for entrant in drawn.sample(entrants, len(entrants)):
                advance(f"round {number + 1} of {plan.rounds}: {case.name} x{case.concurrency}, {entrant.name}")
                await _turn(entrant, case, model, plan.turn_s, records[entrant.name, case])
    return records


async def remember(entrant: Entrant, before_mb: float, records: Records, model: str, plan: Plan) -> Memory:
    """Send what is left of the requests after which memory is read, then read it."""
    done = sum(record.requests for (name, _), record in records.items() if name == entrant.name)
    tally, after_mb = Tally(), None
    try:
        async with connections(entrant.port, 16) as opened:
            tally = await send(opened, Requests(Shape(), model), plan.memory_s, plan.requests - done)
        after_mb = entrant.usage().rss_mb
    except (OSError, PoolError) as error:
        tally.errors[_first_line(error)] += 1
    return Memory(before_mb, after_mb, done + len(tally.latencies_s), tally.errors)


async def _turn(entrant: Entrant, case: Case, model: str, seconds: float, record: Record) -> None:
    try:
        async with connections(entrant.port, case.concurrency) as opened:
            await send(opened, Requests(Shape(), model), _WARM_UP_S, max(case.concurrency, _LEAST_WARM_UP))
            before = entrant.usage()
            tally = await send(opened, Requests(case.shape, model), seconds)
            after = entrant.usage()
    except (OSError, PoolError) as error:
        record.errors[_first_line(error)] += 1
        return
    record.requests += len(tally.latencies_s)
    record.errors += tally.errors
    record.samples.append(judge(tally, before, after))


def judge(tally: Tally, before: Usage, after: Usage) -> Sample:
    """A turn's figures. CPU of failed requests counts too, as nobody can tell it apart."""
    done = len(tally.latencies_s)
    return Sample(
        p50_ms=milliseconds(tally.latencies_s, 50),
        p99_ms=milliseconds(tally.latencies_s, 99),
        first_p50_ms=milliseconds(tally.firsts_s, 50),
        first_p99_ms=milliseconds(tally.firsts_s, 99),
        requests_per_s=done / tally.elapsed_s if tally.elapsed_s else 0.0,
        cpu_ms=1e3 * (after.cpu_s - before.cpu_s) / done if done else None,
        rss_mb=after.rss_mb,
    )


def milliseconds(seconds: Sequence[float], q: float) -> float | None:
    """The q-th percentile of `seconds`, in milliseconds; None of none."""
    found = percentile(seconds, q)
    return None if found is None else round(1e3 * found, 3)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
