"""One replica: vLLM's scheduling step with Tempo's plug-in around it, in virtual time.

A step goes as in the engine: apply the plan, if one is due; serve those who run, in order; admit those who wait, from
the head of the queue, as long as there are places, tokens and memory; let the step's time pass; hand out tokens. Where
memory is short, the last of those who run loses its place, and computes again what the cache forgets meanwhile.

The plug-in's part (`tempo_vllm.mixin`) is the same here: decodes go before prefills, victims of a plan come last until
the next one, newcomers wait behind everybody that the plan knows, a better newcomer shares the budget with prompts that
are being computed, and where memory runs out before places do, the places in use are all there are. What vLLM overlaps
(a step is scheduled while the one before it runs) happens in sequence here. A test runs both side by side: each request
begins and ends on the same step, with preemptions, scarce memory and all.

Most steps only decode, and the next one does the same. `_coast` takes these together, up to the step on which something
can change: the result is the same number for number, as `coasting=False` shows.
"""

from itertools import islice
from math import inf
from operator import attrgetter
from typing import Final

from tempo_core.policies import POLICIES, Policy
from tempo_core.snapshot import Entry, Plan, Settings, Snapshot
from tempo_core.steptime import StepTime, StepTimeFit, observe, start_fit
from tempo_core.tenants import TenantCounters
from tempo_sim.batch import Counts, Live, Step
from tempo_sim.kv import KVCache
from tempo_sim.pacing import Pacer
from tempo_sim.profiles import EngineProfile

_TEMPO: Final = POLICIES["tempo"]
_PLACE: Final = attrgetter("place")


class Replica:
    """An engine with its own clock, `now_s`: when the step at hand has ended.

    Args:
        profile: what steps cost, and how much there is of everything.
        policy: asked once a frame or on change.
        settings: passed on to the policy.
        frame_steps: length of a frame.
        coasting: take steps that only decode together; the result does not depend on it.

    """

    def __init__(
        self,
        profile: EngineProfile,
        policy: Policy,
        settings: Settings,
        *,
        frame_steps: int = 20,
        coasting: bool = True,
    ) -> None:
        self.now_s = 0.0
        self.running: list[Live] = []
        self.waiting: list[Live] = []
        self.cache = KVCache(profile.kv_blocks, profile.block_size)
        self.counts = Counts()
        self._profile = profile
        self._policy = policy
        self._settings = settings
        self._pacer = Pacer(frame_steps)
        self._tenants = TenantCounters()
        self._coasting = coasting
        self._fit: StepTimeFit = start_fit()
        self._places = profile.max_places
        self._budget = profile.max_step_tokens
        self._prefilling = False
        self._short_of_memory = False
        self._steady = False

    @property
    def busy(self) -> bool:
        """Whether it has any request."""
        return bool(self.running or self.waiting)

    @property
    def step_time(self) -> StepTime:
        """What it has learned of how long steps take."""
        return self._fit.model

    @property
    def ranks(self) -> bool:
        """Whether its queue is ordered by what waiting loses."""
        return getattr(self._policy, "watched", self._policy) is _TEMPO

    @property
    def quiet_until_s(self) -> float:
        """No request of it ends before this; inf if it has none."""
        fewest = min((live.end - live.length for live in (*self.running, *self.waiting)), default=inf)
        return self.now_s + 0.999 * fewest * self._profile.shortest_step_s  # less a bit, for the rounding of sums

    def submit(self, live: Live, at_s: float) -> None:
        """A request arrives at `at_s`, never before the start of the step at hand."""
        if not self.busy:
            self.now_s = max(self.now_s, at_s)
        live.rest(at_s)
        self.waiting.append(live)
        self._pacer.changed = True
        self._steady = False

    def withdraw(self, live: Live) -> None:
        """Nobody waits for the request any more; one that has ended is left alone."""
        if live in self.running:
            self.running.remove(live)
            self.cache.release(live.holding, live.computed)
        elif live in self.waiting:
            self.waiting.remove(live)
        else:
            return
        self._tenants.end(live.resting or live.entry())
        self._pacer.changed = True
        self._steady = False

    def advance(self, until_s: float) -> list[Live]:
        """Run the steps that begin before `until_s`, at least one, up to the first that ends requests: these."""
        while True:
            if self._steady and self._coasting and self._coast(until_s) and self.now_s >= until_s:
                return []
            ended = self._step()
            if ended or self.now_s >= until_s:
                return ended

    # -- a step -----------------------------------------------------------------------------------------------------

    def _step(self) -> list[Live]:
        self.counts.steps += 1
        if self._pacer.due(self.now_s):
            self._pass()
        elif self._prefilling:
            self._sort_running()
        step = Step(self._budget, self._longest_chunk())
        self._serve_running(step)
        if not step.preempted:
            self._admit(step)
        self._note_memory(step)
        self._compute(step)
        return self._hand_out(step)

    def _serve_running(self, step: Step) -> None:
        """Give those who run their tokens, in order. Who loses its place is the last, so nobody is skipped."""
        decodes = step.decodes
        for live in self.running:  # those that decode go first, and are the most: one token each
            computed = live.computed
            if len(decodes) == step.left or live.length - computed > 1:
                break
            if computed == live.holding.capacity and not self._make_room(live, 1, step):
                break
            decodes.append(live)
        step.left -= len(decodes)
        for live in islice(self.running, len(decodes), None):
            tokens = min(live.length - live.computed, step.left, step.longest)
            if not tokens or not self._make_room(live, tokens, step):
                return
            step.add(live, tokens)

    def _make_room(self, live: Live, tokens: int, step: Step) -> bool:
        """Whether it has memory now; it takes that of the last, who may be itself."""
        while not self.cache.grow(live.holding, live.computed + tokens):
            step.preempted = True
            victim = self.running.pop()
            self._evict(victim)
            at = next((i for i, other in enumerate(self.waiting) if other.place >= victim.place), len(self.waiting))
            self.waiting.insert(at, victim)
            self.counts.memory_preemptions += 1
            if victim is live:
                return False
        return True

    def _admit(self, step: Step) -> None:
        while self.waiting and step.left and len(self.running) < self._places:
            live = self.waiting[0]
            cached = self.cache.cached_tokens(live.holding, live.length)
            tokens = min(live.length - cached, step.left, step.longest)
            if not self.cache.admit(live.holding, cached, cached + tokens, live.length):
                return
            self.running.append(self.waiting.pop(0))
            live.computed, live.resting = cached, None
            step.admitted = True
            self.counts.cached_tokens += cached
            step.add(live, tokens)

    def _note_memory(self, step: Step) -> None:
        """Whether the first in line was left out although there were places and tokens to be had."""
        short = bool(step.left and self._next_in_line())
        if short and not self._short_of_memory:
            self._pacer.changed = True
        self._short_of_memory = short

    def _compute(self, step: Step) -> None:
        """Let the step's time pass. As in the plug-in, whoever is given one token counts as decoding."""
        decoding, prefilled, squares = len(step.decodes), 0, 0
        decode_context = context = sum([live.computed for live in step.decodes])
        for live, tokens in step.chunks:
            context += live.computed
            if tokens == 1:
                decoding += 1
                decode_context += live.computed
            else:
                prefilled += tokens
                squares += tokens * (2 * live.computed + tokens)
            self.counts.prefilled_tokens += tokens
        self._prefilling = prefilled > 0 or step.admitted
        self._tick(decoding, decode_context, prefilled, squares, context)

    def _tick(self, decoding: int, decode_context: int, prefilled: int, squares: int, context: int) -> None:
        duration_s = self._profile.step_s(decoding, decode_context, prefilled, squares)
        self._fit = observe(self._fit, duration_s, decoding, prefilled, context)
        self.now_s += duration_s

    def _hand_out(self, step: Step) -> list[Live]:
        """A token for each that is computed up to its end; returns whose last it was."""
        now_s, ended = self.now_s, []
        for live, tokens in step.chunks:
            live.computed += tokens
        whole = step.decodes + [live for live, _ in step.chunks if live.computed == live.length]
        for live in whole:
            live.computed = live.length
            live.length += 1
            live.stamps.append(now_s)
            if live.length == live.end:
                ended.append(live)
        for live in ended:
            self.running.remove(live)
            self._tenants.end(live.entry())
            self.cache.release(live.holding, live.computed)
            self._pacer.changed = True
        self._steady = not (ended or step.preempted) and len(step.decodes) == len(self.running)
        return ended

    def _coast(self, until_s: float) -> int:
        """Run the steps on which nothing can happen but a token for each that runs, and return how many.

        Whoever waits was left out of the step before, and nothing falls free meanwhile.
        """
        running = self.running
        steps = min(min([live.end - live.length for live in running]) - 1, self._pacer.free_steps)
        if steps <= 0 or self._blocks_for(steps) > self.cache.available:
            return 0
        stamps: list[float] = []
        context, count = sum([live.computed for live in running]), len(running)
        until_s = min(until_s, self._pacer.next_early_s)
        while len(stamps) < steps and self.now_s < until_s:
            self._tick(count, context, 0, 0, context)
            context += count
            stamps.append(self.now_s)
        for live in running:
            live.computed += len(stamps)
            live.length += len(stamps)
            live.stamps.extend(stamps)
            if live.computed > live.holding.capacity:
                self.cache.grow(live.holding, live.computed)
        self._pacer.steps += len(stamps)
        self.counts.steps += len(stamps)
        return len(stamps)

    def _blocks_for(self, steps: int) -> int:
        size = self._profile.block_size
        return sum(-(-max(live.computed + steps - live.holding.capacity, 0) // size) for live in self.running)

    # -- the plan ---------------------------------------------------------------------------------------------------

    def _pass(self) -> None:
        # Where memory runs out before places do, the places in use are all there are.
        places = len(self.running) if self._short_of_memory and self.running else self._profile.max_places
        entries = self._entries()
        snapshot = Snapshot(
            entries,
            places,
            self._profile.max_step_tokens,
            self._fit.model,
            self._settings,
            cache_tokens=self._profile.kv_tokens,
            served=self._tenants.served(entries),
            preempted={live.job.id: live.lost for live in (*self.running, *self.waiting) if live.lost},
        )
        plan = self._policy(snapshot, self.now_s)
        self.counts.passes += 1
        self._pacer.passed(self.now_s, len(entries))
        self._preempt(plan)
        self.waiting.sort(key=_PLACE)
        self._sort_running()
        self._budget = max(1, min(plan.token_budget, self._profile.max_step_tokens))
        # Memory may free up before the next plan, so places that were only out of memory stay open.
        limit = self._profile.max_places if plan.max_running >= places else plan.max_running
        self._places = max(limit, len(self.running), 1)

    def _entries(self) -> list[Entry]:
        entries = [live.entry() for live in self.running]
        for live in self.waiting:
            if live.resting:
                found = self.cache.cached_tokens(live.holding, live.length)
                if found != live.resting.computed:
                    live.resting = live.resting._replace(computed=found)
                entries.append(live.resting)
        return entries

    def _preempt(self, plan: Plan) -> None:
        """Take the plan's order, with the victims last: or they would take back the places that they gave."""
        victims = dict.fromkeys(plan.preempt)
        order = [*(id_ for id_ in plan.order if id_ not in victims), *victims]
        rank = dict(zip(order, range(len(order)), strict=True))
        for live in (*self.running, *self.waiting):
            live.place = rank.get(live.job.id, inf)
        if not victims:
            return
        places = {live.job.id: live for live in self.running}
        for id_ in victims:
            victim = places.pop(id_, None)
            if victim is not None:
                self.running.remove(victim)
                self._evict(victim)
                self.waiting.append(victim)
                self.counts.planned_preemptions += 1

    def _evict(self, victim: Live) -> None:
        self.cache.release(victim.holding, victim.computed)
        victim.computed = 0
        victim.lost += 1
        victim.rest(self.now_s)
        self._pacer.changed = True

    def _sort_running(self) -> None:
        """Those that decode first; within both the plan's order."""
        self.running.sort(key=_PLACE)
        prompts = [live for live in self.running if live.length - live.computed > 1]
        if prompts:
            self.running = [live for live in self.running if live.length - live.computed <= 1] + prompts

    def _next_in_line(self) -> Live | None:
        return self.waiting[0] if self.waiting and len(self.running) < self._places else None

    def _longest_chunk(self) -> int:
        """Tokens of one prompt that the step may compute.

        A worse one's long prompt would keep out a better one for which there is a place, so they share.
        """
        everything = self._profile.max_step_tokens
        if not self._prefilling or self._short_of_memory:
            return everything
        prompts = sum(live.length - live.computed > 1 for live in self.running)
        newcomer = self._next_in_line()
        if not prompts or newcomer is None or newcomer.place >= self.running[-1].place:
            return everything
        return max(1, (self._budget - (len(self.running) - prompts)) // (prompts + 1))
