"""Where requests wait for a replica: `tempo_core.admission` with futures, timers and tickets around it."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from math import inf
from random import randrange
from typing import Final

from tempo_api.jobs import without_promise
from tempo_api.openai import APIError, Ending
from tempo_core.admission import Gate, engines
from tempo_core.graphs import Forecast
from tempo_core.lengths import exponential_grid
from tempo_core.programs import Call
from tempo_core.routing import Demand, Replica, candidates, choose, room, work_tokens
from tempo_core.slo import Overload, Pattern
from tempo_core.snapshot import Job, Settings
from tempo_router.fleet import Fleet
from tempo_router.member import Ticket

NO_REPLICA_S: Final = 5.0
"""How long a request waits where no replica is ready; a pod that is restarted takes longer than anybody would wait."""
LONGEST_S: Final = 600.0
"""How long a request is held at most, whatever its class allows: OpenAI's clients give up then."""
_LOOK_UP_S: Final = 0.05
_SOONEST_S, _LATEST_S = 1.0, 60.0  # what `Retry-After` may say


@dataclass(slots=True, eq=False)
class Turn:
    """A request that wants a replica."""

    id: str
    demand: Demand
    arrival_s: float
    tenant: str = ""
    call: Call | None = None
    """Its place in a program."""
    forecast: Forecast | None = None
    """What is expected of that program."""
    prefix: Sequence[int] = ()
    """Keys of its prompt (`tempo_core.prefixes`)."""
    answers: int = 1
    """That it asks for."""
    max_tokens: int = 1 << 20
    needs_room: bool = True
    """Whether it takes a place of the engine's batch; what does not goes to any replica that is ready."""
    streams: bool = False
    """Whether its answer may be a stream."""
    charged: bool = False
    """Whether it has had a replica, and its tenant pays for that."""
    since_s: float = 0.0
    """When it began to wait."""
    degraded: bool = False
    """It waited for longer than its class allows, and goes on without a promise."""
    ticket: "asyncio.Future[Ticket]" = field(init=False, repr=False)
    """Where its replica is told, once it has to wait."""

    @property
    def work(self) -> float:
        """What is expected of it, in output tokens."""
        return work_tokens(self.demand.prompt_tokens, self.demand.output_tokens)

    def job(self) -> Job:
        """The request as a scheduler sees it."""
        slo, call, demand = self.demand.slo, self.call, self.demand
        forecast = None if self.degraded else self.forecast
        return Job(
            self.id,
            slo,
            arrival_s=self.arrival_s,
            prompt_tokens=round(demand.prompt_tokens),
            max_tokens=self.max_tokens,
            lengths=exponential_grid(demand.output_tokens, self.max_tokens),
            deadline_s=self.arrival_s - demand.elapsed_s + demand.deadline_s,
            program=call and call.program,
            program_arrival_s=call and call.program_arrival_s,
            banked_gain=call.banked_gain if call else 0.0,
            latest_s=forecast.latest_s if forecast else None,
            later_prompt_tokens=forecast.prompt_tokens_left if forecast else 0.0,
            later_output_tokens=forecast.output_tokens_left if forecast else 0.0,
            tools=forecast.tools if forecast else False,
            tenant=self.tenant,
        )


class Line:
    """Gives each request its replica: at once while one has room, else in the order of what waiting loses.

    Args:
        fleet: the replicas.
        clock: seconds.
        capacity: how many may wait.
        settings: the pool's.

    """

    def __init__(self, fleet: Fleet, clock: Callable[[], float], capacity: int, settings: Settings) -> None:
        self.gate = Gate(capacity, settings)
        self.held: Counter[str] = Counter()
        """How many wait, by class."""
        self._fleet = fleet
        self._clock = clock
        self._turns: dict[str, Turn] = {}
        self._work = 0.0
        fleet.on_change = self.advance

    async def wait(self, turn: Turn) -> Ticket:
        """A place at a replica.

        Raises:
            APIError: `NO_REPLICA`, `DEADLINE_PASSED`, `SHED` or `QUEUE_TIMEOUT`, with the time to come back.

        """
        if not (self._turns and turn.needs_room) and (ticket := self._at_once(turn)):
            return ticket
        self._join(turn)
        try:
            self.advance()
            return await turn.ticket
        except BaseException:
            if turn.ticket.done() and not turn.ticket.cancelled() and not turn.ticket.exception():
                self._fleet.release(turn.ticket.result())  # it came as the caller gave up
            raise
        finally:
            self._leave(turn)

    def others(self, turn: Turn, tried: Collection[str]) -> bool:
        """Whether there is another replica for `again`."""
        return bool(self._candidates(turn, tried))

    def again(self, turn: Turn, tried: Collection[str]) -> Ticket | None:
        """A place at another replica for a request whose turn it was; none, if there is no other."""
        ready = self._candidates(turn, tried)
        return self._take(turn, [replica for replica in ready if room(replica)] or ready)

    def advance(self) -> None:
        """Let go as many as replicas have room for."""
        while self._turns:
            ready = candidates(self._fleet.candidates())
            if not any(map(room, ready)):
                return
            to_place = any(room(replica, crowds=True) for replica in ready)
            job = self.gate.release(self._clock(), engines(ready), to_place=to_place)
            if job is None:
                return
            turn = self._turns[job.id]
            self._leave(turn)
            if turn.ticket.done():  # its caller gave up a moment ago
                continue
            if ticket := self._at_once(turn):
                turn.ticket.set_result(ticket)

    async def watch(self) -> None:
        """Look after those who wait, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_UP_S)
            self.look_up()

    def look_up(self) -> None:
        """Refuse or degrade whoever has waited for as long as it may."""
        if self._turns:
            ready, now_s = any(self._fleet.ready.values()), self._clock()
            for turn in list(self._turns.values()):
                self._impatient(turn, now_s, ready=ready)

    def ended(self, turn: Turn, prompt_tokens: float, output_tokens: float) -> None:
        """A request ended; its tenant has been charged for what was expected of it."""
        if turn.charged:
            more = work_tokens(prompt_tokens, output_tokens) - turn.work
            self.gate.ends(turn.tenant, turn.demand.slo.name, more, self._clock())

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _join(self, turn: Turn) -> None:
        self._turns[turn.id], turn.since_s, turn.ticket = turn, self._clock(), asyncio.Future()
        self._work += turn.work
        self.held[turn.demand.slo.name] += 1
        ready = candidates(self._fleet.candidates())
        out = self.gate.hold(turn.job(), self._clock(), engines(ready))
        if out is not None:
            message = f"{len(self._turns) - 1} requests wait already, and every one of them loses more by it."
            self._refuse(self._turns[out], Ending.SHED, message)

    def _leave(self, turn: Turn) -> None:
        if self._turns.pop(turn.id, None):
            self.gate.leave(turn.id)
            self._work -= turn.work
            self.held[turn.demand.slo.name] -= 1

    def _impatient(self, turn: Turn, now_s: float, *, ready: bool) -> None:
        """Refuse or degrade a request that has waited for as long as it may."""
        slo, waited_s = turn.demand.slo, now_s - turn.since_s
        if not ready:
            due_s = turn.arrival_s - turn.demand.elapsed_s + turn.demand.deadline_s
            if slo.pattern is Pattern.DEADLINE and now_s >= due_s:
                self._refuse(turn, Ending.DEADLINE_PASSED, "The request's deadline passed before a replica was ready.")
            elif waited_s >= min(NO_REPLICA_S, slo.max_queue_time_s):
                self._refuse(turn, Ending.NO_REPLICA, f"No replica was ready within {waited_s:.3g} s.")
        elif waited_s >= LONGEST_S or (waited_s >= slo.max_queue_time_s and slo.overload is Overload.SHED):
            message = f"No replica had room for class {slo.name} within {waited_s:.3g} s."
            self._refuse(turn, Ending.QUEUE_TIMEOUT, message)
        elif waited_s >= slo.max_queue_time_s and slo.overload is Overload.DEGRADE and not turn.degraded:
            turn.degraded = True
            turn.demand = turn.demand._replace(slo=without_promise(slo), deadline_s=inf)
            self.gate.degrade(turn.job())

    def _refuse(self, turn: Turn, ending: Ending, message: str) -> None:
        self._leave(turn)
        if not turn.ticket.done():
            turn.ticket.set_exception(APIError(ending, message, retry_after_s=self._retry_after_s()))

    def _retry_after_s(self) -> float:
        speed = sum(self._fleet.tokens_per_s.values())
        return min(max(self._work / speed if speed else _SOONEST_S, _SOONEST_S), _LATEST_S)

    # -- the choice ---------------------------------------------------------------------------------------------------

    def _at_once(self, turn: Turn) -> Ticket | None:
        ready = self._candidates(turn)
        if turn.needs_room:
            crowds = self.gate.crowds(turn.tenant, sum(replica.places for replica in ready), self._clock())
            ready = [replica for replica in ready if room(replica, crowds=crowds)]
        return self._take(turn, ready)

    def _candidates(self, turn: Turn, tried: Collection[str] = ()) -> list[Replica]:
        return candidates(self._fleet.candidates(turn.call and turn.call.program, turn.prefix), tried)

    def _take(self, turn: Turn, replicas: Sequence[Replica]) -> Ticket | None:
        chosen = replicas[0] if len(replicas) == 1 else choose(replicas, turn.demand, randrange)
        if chosen is None:
            return None
        work, program = turn.work, turn.call and turn.call.program
        if turn.needs_room and not turn.charged:
            turn.charged = True
            self.gate.begins(turn.tenant, turn.demand.slo.name, work, self._clock())
        return self._fleet.take(chosen.name, round(work), program, turn.prefix, streams=turn.streams)
