"""Runs a workload: an open loop for measuring, a closed loop for finding capacity."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Protocol

from tempo_bench.accounting import CallRecord, UnitRecord
from tempo_bench.client import AnyCall, AnyUnit, Caller, Target, open_session
from tempo_bench.progress import Tally


class AnyWorkload(Protocol):
    """Units in order of arrival."""

    @property
    def units(self) -> Sequence[AnyUnit]:
        """All of them."""
        ...

    @property
    def rate_per_s(self) -> float:
        """Units a second."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal for equal workloads only."""
        ...


async def drive(workload: AnyWorkload, target: Target, tally: Tally, *, drain_s: float = 300.0) -> list[UnitRecord]:
    """Send every unit at its time, however slow the answers are, and follow each to its end.

    What is in flight `drain_s` after the last arrival is given up and recorded as an error, so nothing hangs and
    nothing is left out.
    """
    if not workload.units:
        return []
    async with open_session() as session:
        origin_s = asyncio.get_running_loop().time()
        caller = Caller(session, target, origin_s, workload.units[-1].at_s + drain_s)
        async with asyncio.TaskGroup() as group:
            tasks = []
            for unit in workload.units:
                await asyncio.sleep(unit.at_s - caller.now_s())
                tasks.append(group.create_task(_follow(unit, unit.at_s, caller, tally)))
        return [task.result() for task in tasks]


async def saturate(
    units: Sequence[AnyUnit], target: Target, tally: Tally, *, in_flight: int, seconds: float, drain_s: float = 120.0
) -> list[UnitRecord]:
    """Keep `in_flight` units going for `seconds`, each replaced as it ends, then let the last ones end."""
    async with open_session() as session:
        caller = Caller(session, target, asyncio.get_running_loop().time(), seconds + drain_s)
        records: list[UnitRecord] = []
        queue = iter(units)
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(_worker(queue, caller, tally, seconds, records))
        return records


async def _worker(
    queue: Iterator[AnyUnit], caller: Caller, tally: Tally, seconds: float, records: list[UnitRecord]
) -> None:
    while caller.now_s() < seconds and (unit := next(queue, None)):
        records.append(await _follow(unit, caller.now_s(), caller, tally))


async def _follow(unit: AnyUnit, arrival_s: float, caller: Caller, tally: Tally) -> UnitRecord:
    """Run a unit's stages one after the other, the calls of each in parallel; a failed call ends it."""
    tally.arrived(unit.kind)
    stages: list[tuple[CallRecord, ...]] = []
    earlier: list[str] = []
    for index, stage in enumerate(unit.stages):
        calls = await asyncio.gather(*(_send(unit, index, call, earlier, caller) for call in stage))
        stages.append(tuple(calls))
        if any(call.error is not None for call in calls):
            break
        earlier = [call.text for call in calls]
    record = UnitRecord(unit.id, unit.kind, arrival_s, tuple(stages))
    tally.ended(record)
    return record


async def _send(unit: AnyUnit, stage: int, call: AnyCall, earlier: list[str], caller: Caller) -> CallRecord:
    await asyncio.sleep(call.delay_s)
    return await caller.call(unit, stage, call, earlier)
