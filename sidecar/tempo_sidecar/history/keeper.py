"""Between the requests and the history: forecasts on the request path, everything slow behind it."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Final

import msgspec

from tempo_api.wire import Intake
from tempo_core.gain import Outcome
from tempo_core.graphs import GraphError, PatternGraphs, Record
from tempo_core.programs import Call
from tempo_core.slo import Pattern, SLOClass
from tempo_sidecar.history.store import HistoryError, HistoryStore

_LOG = logging.getLogger(__name__)
_AT_ONCE: Final = 20
"""Graphs restored, in some 2 ms, before requests get their turn."""


@dataclass(frozen=True, slots=True)
class Pacing:
    """How often the store is used, and how much waits for it."""

    write_s: float = 2.0
    reload_s: float = 300.0
    """What other nodes have written is looked at so often."""
    retry_s: float = 1.0
    """After a failure; twice as long after each that follows."""
    longest_retry_s: float = 60.0
    max_pending: int = 1000
    """Graphs waiting to be written; one more drops the oldest."""


@dataclass(slots=True)
class Counts:
    """What happened, for metrics."""

    matched: int = 0
    """Calls whose forecast came from a match."""
    unmatched: int = 0
    written: int = 0
    dropped: int = 0
    failures: int = 0
    unreadable: int = 0
    """Stored rows that were no graphs, when last read."""


class HistoryKeeper:
    """Makes forecasts for collective calls, and keeps the graphs of programs that ended in a store.

    The methods that requests call do no I/O. While the store fails, what is to be written waits, within bounds, and
    the store is tried again, ever more seldom.

    Args:
        graphs: the running programs and their graphs.
        store: None: nothing outlasts the process.
        pacing: see there.
        clock: absolute seconds (epoch).

    """

    def __init__(
        self,
        graphs: PatternGraphs,
        store: HistoryStore | None = None,
        *,
        pacing: Pacing | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.graphs = graphs
        self.counts = Counts()
        self._store = store
        self._pacing = pacing or Pacing()
        self._clock = clock
        self._pending: OrderedDict[tuple[str, bytes], Record] = OrderedDict()
        self._loaded_s: float | None = None

    @property
    def pending(self) -> int:
        """Graphs waiting to be written."""
        return len(self._pending)

    def begin(self, intake: Intake, slo: SLOClass, prompt_tokens: int, now_s: float) -> tuple[Intake, Call | None]:
        """A request arrives; returns its intake with the sub-deadline and the later work that its pattern gives.

        The call, None for what is no part of a program, is owed an `end`.
        """
        if slo.pattern is not Pattern.COLLECTIVE or intake.program is None:
            return intake, None
        arrival_s = now_s - max(intake.elapsed_s, 0.0)
        stage, program_s = max(intake.stage, 0), arrival_s - intake.program_elapsed_s
        granted_s = slo.deadline_s(stage) if intake.deadline_s is None else intake.deadline_s
        call = Call(intake.program, stage, program_s, arrival_s + granted_s, intake.banked_gain)
        forecast = self.graphs.begin(call, slo, prompt_tokens, arrival_s, final=intake.final)
        if not forecast.similarity:
            self.counts.unmatched += 1
            return msgspec.structs.replace(intake, tools=forecast.tools), call
        self.counts.matched += 1
        due_s = forecast.due_s - arrival_s if isfinite(forecast.due_s) else None
        told = msgspec.structs.replace(
            intake,
            deadline_s=due_s,
            latest_s=forecast.latest_s - arrival_s if isfinite(forecast.latest_s) else None,
            later_prompt_tokens=forecast.prompt_tokens_left,
            later_output_tokens=forecast.output_tokens_left,
            tools=forecast.tools,
        )
        return told, call

    def end(self, call: Call, outcome: Outcome, now_s: float) -> None:
        """A call ended, and with it perhaps its program."""
        record = self.graphs.end(call, outcome, now_s)
        self._keep([record] if record else [])

    def expire(self, now_s: float) -> None:
        """End the programs that have been idle; to be called about every second."""
        self._keep(self.graphs.expire(now_s))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load, write and reload while this is entered; write what is left at its end."""
        if self._store is None:
            yield
            return
        task = asyncio.create_task(self._use(self._store))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            try:
                await self._write(self._store)
            except HistoryError as error:
                _LOG.warning("%d graphs of finished programs are lost: %s", self.pending, error)
            await self._store.close()

    async def _use(self, store: HistoryStore) -> None:
        pacing, retry_s = self._pacing, 0.0
        while True:
            try:
                await self._reload(store)
                await self._write(store)
                retry_s = 0.0
            except HistoryError as error:
                self.counts.failures += 1
                if not retry_s:
                    _LOG.warning("The history of programs can't be used; serving goes on without: %s", error)
                retry_s = min(max(pacing.retry_s, 2.0 * retry_s), pacing.longest_retry_s)
            await asyncio.sleep(retry_s or pacing.write_s)

    async def _reload(self, store: HistoryStore) -> None:
        now_s = self._clock()
        if self._loaded_s is not None and 0.0 <= now_s - self._loaded_s < self._pacing.reload_s:
            return
        records, unreadable = await store.load()
        for index, record in enumerate(records):
            try:
                self.graphs.restore(record, now_s)
            except GraphError:
                unreadable += 1
            if index % _AT_ONCE == 0:
                await asyncio.sleep(0.0)
        self.counts.unreadable = unreadable
        self._loaded_s = now_s

    async def _write(self, store: HistoryStore) -> None:
        batch = list(self._pending.items())
        if not batch:
            return
        await store.save([record for _, record in batch])
        self.counts.written += len(batch)
        for key, record in batch:
            if self._pending.get(key) == record:  # otherwise it was used again meanwhile
                del self._pending[key]

    def _keep(self, records: Iterable[Record]) -> None:
        if self._store is None:
            return
        for record in records:
            key = (record.slo_class, record.graph)
            self._pending[key] = record
            self._pending.move_to_end(key)
            if len(self._pending) > self._pacing.max_pending:
                self._pending.popitem(last=False)
                self.counts.dropped += 1
