"""The seam: what Tempo does before and after each of vLLM's own scheduling steps.

The mixin goes before a vLLM scheduler class and never replaces its `schedule`: it puts the waiting and the running
requests in the plan's order, preempts, sets budgets, and hands over. vLLM serves running requests in list order, then
admits waiting ones from the head of the queue, and takes the last running one where memory is short.

Among running requests those that decode come before those that prefill: each needs one token, and a prompt would take
them all (the stall-free batches of Sarathi-Serve, arXiv 2403.02310). The plan's order holds within both.

`SEAM` lists what is relied on; without it the engine serves in its own order.
"""

import inspect
import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

from tempo_core.snapshot import Plan
from tempo_vllm.adapter import Adapter
from tempo_vllm.pools import PoolFile
from tempo_vllm.status import Housekeeper, status_file
from tempo_vllm.steps import step_load

_log = logging.getLogger(f"vllm.{__name__}")

CONFIG_ENV: Final = "TEMPO_CONFIG_FILE"

SEAM: Final = (
    "_preempt_request",
    "finished_req_ids",
    "kv_cache_manager",
    "max_num_running_reqs",
    "max_num_scheduled_tokens",
    "pause_state",
    "policy",
    "prev_step_scheduled_req_ids",
    "requests",
    "running",
    "scheduler_config",
    "waiting",
)
"""Attributes of `vllm.v1.core.sched.scheduler.Scheduler` that the mixin reads or sets."""

_ANY: Any = object


class TempoMixin(_ANY):  # type: ignore[misc]  # its base is vLLM's class, which the checker does not read
    """Put before a vLLM scheduler class. `tempo` holds everything of ours; the rest is vLLM's."""

    ranked_queue: ClassVar[type[Any]]
    """A `RequestQueue` of vLLM's, with `RankedQueue` before it."""
    waiting: Any
    policy: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = os.environ.get(CONFIG_ENV)
        self.tempo = Adapter(PoolFile(Path(config) if config else None))
        self._tempo_prefilling = False
        self._tempo_short_of_memory = False
        try:
            self._tempo_remember_vllms_own()
        except (AttributeError, TypeError, ValueError) as error:
            self.tempo.breaker.open(f"this vLLM is not one that Tempo knows: {error}")
        else:
            _log.info("Tempo schedules this engine with policy %r", self.tempo.pools.pool.spec.scheduler.policy)
        wanted = config or status_file()
        self._tempo_housekeeper = Housekeeper(self._tempo_status, self.tempo.pools.refresh) if wanted else None

    def add_request(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """Let the request in, and note its facts."""
        super().add_request(request, *args, **kwargs)
        if not self.tempo.breaker.is_open:
            with self.tempo.breaker:  # a session's next turn comes as a request of its own; the live one counts
                self.tempo.arrived(self.requests.get(request.request_id, request))

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """One of vLLM's own steps, in the order and within the budgets of the last plan."""
        breaker = self.tempo.breaker
        breaker.next_step()
        if breaker.is_open:
            if self._tempo_in_charge():
                self._tempo_hand_back()
            return super().schedule(*args, **kwargs)
        began_s, steered = self.tempo.monotonic(), False
        with breaker:
            self._tempo_before_step()
            steered = True
        if not steered:
            self._tempo_hand_back()
        output = super().schedule(*args, **kwargs)
        # The one argument that `schedule` has had: whether prefills are put off (data parallel balancing).
        put_off = any(args) or any(kwargs.values())
        with breaker:
            self._tempo_after_step(output, began_s, put_off=put_off)
        return output

    def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """As vLLM does, timed."""
        if self.tempo.breaker.is_open:
            return super().update_from_output(scheduler_output, *args, **kwargs)
        ended_s = self.tempo.monotonic()
        result = super().update_from_output(scheduler_output, *args, **kwargs)
        with self.tempo.breaker:
            self.tempo.meter.ended(scheduler_output, ended_s)
            self.tempo.tokens_came(self.requests)
        return result

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """Stop our thread, then vLLM."""
        if self._tempo_housekeeper is not None:
            self._tempo_housekeeper.stop()
        super().shutdown(*args, **kwargs)

    def _tempo_status(self) -> dict[str, Any]:
        """What the sidecar reads, with what vLLM itself counts: from another thread, and whoever is in charge.

        An engine that lacks something of this can still be scheduled.
        """
        status = self.tempo.status()
        with suppress(AttributeError):
            status["running"], status["waiting"] = self.get_request_counts()
            status["places"] = self.scheduler_config.max_num_seqs
            status["cache_used"] = round(self.kv_cache_manager.usage, 3)
        return status

    # -- before and after a step ------------------------------------------------------------------------------------

    def _tempo_before_step(self) -> None:
        tempo = self.tempo
        tempo.finished(self.finished_req_ids)
        if not self._tempo_in_charge():
            self._tempo_take_over()
        if tempo.pass_due() and self._tempo_admits() and (self.running or self.waiting):
            self._tempo_pass()
        elif self._tempo_prefilling:
            self._tempo_sort_running()
        self.scheduler_config.long_prefill_token_threshold = self._tempo_longest_prompt_chunk()

    def _tempo_pass(self) -> None:
        # Where memory runs out before places do, the places in use are all there are.
        places = len(self.running) if self._tempo_short_of_memory and self.running else self._tempo_places
        plan = self.tempo.plan(self.running, self._tempo_candidates(), places, self._tempo_step_tokens)
        # Until the next plan the victims come last, or they would take back the places that they gave.
        victims = dict.fromkeys(plan.preempt)
        self.waiting.rank([*(id_ for id_ in plan.order if id_ not in victims), *victims])
        self._tempo_preempt(plan.preempt)
        self._tempo_sort_running()
        self._tempo_set_budgets(plan, places)

    def _tempo_after_step(self, output: Any, began_s: float, *, put_off: bool) -> None:
        tempo, load = self.tempo, step_load(output)
        tempo.meter.began(output, began_s, load)
        tempo.evicted(output.preempted_req_ids or ())
        if output.scheduled_new_reqs:
            tempo.admitted(new.req_id for new in output.scheduled_new_reqs)
        self._tempo_prefilling = load.prefilled > 0 or bool(output.scheduled_new_reqs)
        short = not put_off and self._tempo_left_out_for_memory(output)
        if short and not self._tempo_short_of_memory:
            tempo.pacer.changed()
        self._tempo_short_of_memory = short

    def _tempo_left_out_for_memory(self, output: Any) -> bool:
        """Whether the first in line was left out although there were places and tokens to be had."""
        spent = output.total_num_scheduled_tokens >= self.max_num_scheduled_tokens
        return self._tempo_chunks and not spent and self._tempo_next_in_line() is not None

    def _tempo_next_in_line(self) -> Any:
        """The waiting request for which there is a place, or None."""
        if not self.waiting or len(self.running) >= getattr(self, self._tempo_places_name) or not self._tempo_admits():
            return None
        first = self.waiting.peek_request()
        return None if first in self._tempo_deferred() else first

    def _tempo_admits(self) -> bool:
        """A paused engine lets nobody in: whoever lost a place would not get it back, and a drain would never end."""
        return bool(self.pause_state.name == "UNPAUSED")

    # -- the plan's parts -------------------------------------------------------------------------------------------

    def _tempo_sort_running(self) -> None:
        place = self.waiting.place
        self.running.sort(key=lambda request: (request.is_prefill_chunk, place(request)))

    def _tempo_longest_prompt_chunk(self) -> int:
        """Tokens of one prompt that a step may compute; 0: any number.

        Running requests are served first, so a worse one's long prompt would keep out a better one that has a place
        for many steps. While that is so they share. Once both run, the order says who is first.
        """
        own = self._tempo_long_prompt
        prompts = sum(request.is_prefill_chunk for request in self.running) if self._tempo_prefilling else 0
        if not prompts or not self._tempo_chunks or self._tempo_short_of_memory:
            return own
        newcomer, place = self._tempo_next_in_line(), self.waiting.place
        if newcomer is None or place(newcomer) >= place(self.running[-1]):
            return own
        tokens = self.max_num_scheduled_tokens - (len(self.running) - prompts)
        share = max(1, tokens // (prompts + 1))
        return min(share, own or share)

    def _tempo_deferred(self) -> Any:
        """Waiting requests that vLLM passed over for reasons of their own; older versions keep no such set."""
        return getattr(self, "deferred_waiting", ())

    def _tempo_candidates(self) -> Iterable[Any]:
        """The waiting requests that could run now: a place made for any other would stay empty."""
        waiting: Iterable[Any] = self.waiting
        if deferred := self._tempo_deferred():
            return [request for request in waiting if request not in deferred or _can_run(request)]
        return waiting

    def _tempo_preempt(self, ids: Sequence[str]) -> None:
        places = {request.request_id: request for request in self.running} if ids else {}
        for id_ in ids:
            victim = places.pop(id_, None)
            if victim is None:
                continue
            # First the call, then the list: should it raise, the request is still where it was.
            self._preempt_request(victim, self.tempo.monotonic(), **self._tempo_preempt_options)
            self.running.remove(victim)
            # Should it come back in this very step, the worker needs its tokens anew (as in `reset_prefix_cache`).
            self.prev_step_scheduled_req_ids.discard(id_)
            self.tempo.preempted()

    def _tempo_set_budgets(self, plan: Plan, places: int) -> None:
        if self._tempo_chunks:
            self.max_num_scheduled_tokens = max(1, min(plan.token_budget, self._tempo_step_tokens))
        # Memory may free up before the next plan, so places that were only out of memory stay open.
        limit = self._tempo_places if plan.max_running >= places else plan.max_running
        setattr(self, self._tempo_places_name, max(limit, len(self.running), 1))

    # -- who is in charge -------------------------------------------------------------------------------------------

    def _tempo_remember_vllms_own(self) -> None:
        missing = [name for name in SEAM if not hasattr(self, name)]
        if missing:
            raise AttributeError(f"its scheduler lacks {', '.join(missing)}")
        config = self.scheduler_config
        self._tempo_own_queue = type(self.waiting)
        self._tempo_own_policy = self.policy
        # vLLM asserts that `running` never exceeds max_num_running_reqs; newer versions have a second, softer limit.
        newer = hasattr(self, "max_num_active_reqs")
        self._tempo_places_name: str = "max_num_active_reqs" if newer else "max_num_running_reqs"
        self._tempo_places: int = getattr(self, self._tempo_places_name)
        self._tempo_step_tokens: int = self.max_num_scheduled_tokens
        self._tempo_long_prompt: int = config.long_prefill_token_threshold
        # What can't be cut into chunks of any size would wait forever under a smaller budget.
        self._tempo_chunks: bool = (
            config.enable_chunked_prefill
            and not getattr(config, "disable_chunked_mm_input", False)
            and not getattr(self, "need_mamba_block_aligned_split", False)
        )
        # What `get_computed_blocks` asks as well, without its statistics.
        find = self.kv_cache_manager.coordinator.find_longest_cache_hit
        self.tempo.cached = lambda request: find(request.block_hashes, request.num_tokens - 1)[1]
        knows_drop = "drop_stale_output" in inspect.signature(self._preempt_request).parameters
        self._tempo_preempt_options = (
            {"drop_stale_output": getattr(self, "requires_kv_delivery", False)} if knows_drop else {}
        )

    def _tempo_in_charge(self) -> bool:
        return isinstance(self.waiting, self.ranked_queue)

    def _tempo_take_over(self) -> None:
        self.waiting = self.ranked_queue(self.waiting)
        self.policy = type(self.policy)("fcfs")  # by which the victim is the last of `running`: the plan's last

    def _tempo_hand_back(self) -> None:
        waiting = self._tempo_own_queue()
        for request in sorted(self.waiting, key=_arrival):
            waiting.add_request(request)
        self.waiting = waiting
        self.policy = self._tempo_own_policy
        self.running.sort(key=_arrival)
        self.max_num_scheduled_tokens = self._tempo_step_tokens
        self.scheduler_config.long_prefill_token_threshold = self._tempo_long_prompt
        setattr(self, self._tempo_places_name, self._tempo_places)


def _arrival(request: Any) -> float:
    arrival_s: float = request.arrival_time
    return arrival_s


def _can_run(request: Any) -> bool:
    """Whether a deferred request waits for nothing but its turn: vLLM wakes it only once it is looked at."""
    status: str = request.status.name
    if status == "WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR":
        return request.structured_output_request.grammar is not None
    return status in {"WAITING", "PREEMPTED"}
