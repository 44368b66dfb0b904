"""What the plug-in relies on in vLLM, one symbol a test: after an upgrade, the failing test's name says what moved."""

import dataclasses
import inspect
import re
from types import SimpleNamespace

import pytest

from tempo_vllm.mixin import SEAM

READ_OF_A_REQUEST = (
    "arrival_time",
    "is_prefill_chunk",
    "max_tokens",
    "num_computed_tokens",
    "num_output_tokens",
    "num_prompt_tokens",
    "priority",
    "request_id",
    "sampling_params",
    "status",
    "structured_output_request",
)
READ_OF_A_STEP = (
    "num_scheduled_tokens",
    "preempted_req_ids",
    "scheduled_cached_reqs",
    "scheduled_new_reqs",
    "scheduled_spec_decode_tokens",
    "total_num_scheduled_tokens",
)


@pytest.fixture
def scheduler(make):
    return make("vllm").scheduler


@pytest.fixture
def source(virtual):
    """The text of a method of vLLM's scheduler, in one line."""
    return lambda name: re.sub(r"\s+", " ", inspect.getsource(getattr(virtual.SCHEDULERS["vllm"], name)))


@pytest.mark.parametrize("name", SEAM)
def test_the_scheduler_has(scheduler, name):
    assert hasattr(scheduler, name), f"Scheduler.{name} moved"


def test_the_engine_counts_its_requests_and_its_memory(scheduler):
    assert scheduler.get_request_counts() == (0, 0)
    assert scheduler.kv_cache_manager.usage == 0.0
    assert scheduler.scheduler_config.max_num_seqs == 16


@pytest.mark.parametrize(("asynchronous", "name"), [(True, "TempoAsyncScheduler"), (False, "TempoScheduler")])
def test_one_name_becomes_the_scheduler_that_the_engine_s_settings_ask_for(monkeypatch, asynchronous, name):
    from tempo_vllm import scheduler as module

    settings = SimpleNamespace(scheduler_config=SimpleNamespace(async_scheduling=asynchronous))
    monkeypatch.setattr(module, name, lambda config, **rest: (name, config, rest))
    assert module.Tempo(vllm_config=settings, block_size=16) == (name, settings, {"block_size": 16})


@pytest.mark.parametrize("name", ["deferred_waiting", "max_num_active_reqs", "requires_kv_delivery"])
def test_the_scheduler_still_has_what_the_plugin_could_do_without(scheduler, name):
    assert hasattr(scheduler, name), f"Scheduler.{name} moved"


@pytest.mark.parametrize("name", ["enable_chunked_prefill", "disable_chunked_mm_input", "long_prefill_token_threshold"])
def test_the_scheduler_config_has(scheduler, name):
    assert hasattr(scheduler.scheduler_config, name), f"SchedulerConfig.{name} moved"


@pytest.mark.parametrize("name", ["add_request", "schedule", "shutdown", "update_from_output"])
@pytest.mark.parametrize("kind", ["vllm", "vllm-async"])
def test_the_scheduler_has_the_method_that_is_extended(virtual, kind, name):
    assert callable(getattr(virtual.SCHEDULERS[kind], name, None)), f"{kind}: {name}() moved"


def test_the_cache_says_what_it_has_of_a_request(scheduler, virtual):
    find = scheduler.kv_cache_manager.coordinator.find_longest_cache_hit
    _, found, *_ = find(virtual.make_request("r").block_hashes, 31)
    assert found == 0, "KVCacheCoordinator.find_longest_cache_hit() moved"


@pytest.mark.parametrize("name", READ_OF_A_REQUEST)
def test_a_request_has(virtual, name):
    assert hasattr(virtual.make_request("r"), name), f"Request.{name} moved"


@pytest.mark.parametrize("name", READ_OF_A_STEP)
def test_a_step_has(virtual, name):
    from vllm.v1.core.sched.output import SchedulerOutput

    assert name in {field.name for field in dataclasses.fields(SchedulerOutput)}, f"SchedulerOutput.{name} moved"


def test_the_parts_of_a_step_tell_what_was_computed(virtual):
    from vllm.v1.core.sched.output import CachedRequestData, NewRequestData

    assert {"req_id", "num_computed_tokens"} <= {field.name for field in dataclasses.fields(NewRequestData)}
    assert "num_computed_tokens" in {field.name for field in dataclasses.fields(CachedRequestData)}


def test_preempting_takes_a_request_a_time_and_what_to_do_with_output_in_flight(scheduler):
    parameters = list(inspect.signature(scheduler._preempt_request).parameters)
    assert parameters == ["request", "timestamp", "drop_stale_output"], "Scheduler._preempt_request() moved"


def test_preempting_leaves_the_running_list_to_the_caller_and_prepends_to_the_waiting_queue(source):
    text = source("_preempt_request")
    assert "self.waiting.prepend_request(request)" in text
    assert "self.running" not in text.replace("running queue outside", "")


def test_the_waiting_queue_is_a_deque_with_a_request_queues_methods(scheduler):
    from collections import deque

    from vllm.v1.core.sched.request_queue import FCFSRequestQueue, RequestQueue

    assert issubclass(FCFSRequestQueue, deque), "FCFSRequestQueue is no deque any more"
    assert RequestQueue.__abstractmethods__ == {
        "__bool__", "__iter__", "__len__", "add_request", "peek_request", "pop_request", "prepend_request",
        "prepend_requests", "remove_request", "remove_requests",
    }, "RequestQueue has other methods than RankedQueue knows of"  # fmt: skip


def test_the_policy_decides_on_nothing_but_the_queues_and_the_victim(source):
    """So that setting it to `fcfs` makes the last running request the victim, and has no other effect."""
    from vllm.v1.core.sched import scheduler as module
    from vllm.v1.core.sched.request_queue import SchedulingPolicy

    assert SchedulingPolicy("fcfs"), "SchedulingPolicy('fcfs') moved"
    assert source("schedule").count("self.policy") == inspect.getsource(module).count("self.policy ==") == 2
    assert "else: preempted_req = self.running.pop()" in source("schedule")


def test_every_ending_is_announced_in_finished_req_ids(source):
    assert "self.finished_req_ids.add(request_id)" in source("_free_request"), "Scheduler.finished_req_ids moved"


def test_budgets_are_read_anew_each_step(source):
    text = source("schedule")
    assert "token_budget = self.max_num_scheduled_tokens" in text, "Scheduler.max_num_scheduled_tokens is not read"
    assert "num_running >= self.max_num_active_reqs" in text, "Scheduler.max_num_active_reqs is not read"
    assert "self.scheduler_config.long_prefill_token_threshold" in text, "long_prefill_token_threshold is not read"


@pytest.mark.parametrize("name", [
    "WAITING", "PREEMPTED", "WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR", "WAITING_FOR_REMOTE_KVS",
    "WAITING_FOR_STREAMING_REQ",
])  # fmt: skip
def test_a_request_can_be(virtual, name):
    from vllm.v1.request import RequestStatus

    assert hasattr(RequestStatus, name), f"RequestStatus.{name} moved"


def test_an_engine_is_paused_unless_it_is_unpaused(scheduler):
    assert scheduler.pause_state.name == "UNPAUSED", "PauseState.UNPAUSED moved"


def test_a_grammar_says_whether_it_is_compiled(virtual):
    from vllm.v1.structured_output.request import StructuredOutputRequest

    assert isinstance(StructuredOutputRequest.grammar, property), "StructuredOutputRequest.grammar moved"


def test_vllm_takes_the_scheduler_class_by_its_name(virtual):
    from vllm.config import SchedulerConfig

    for kind, name in (("tempo", "TempoScheduler"), ("tempo-async", "TempoAsyncScheduler")):
        config = SchedulerConfig.default_factory(scheduler_cls=f"tempo_vllm.scheduler.{name}")
        assert config.get_scheduler_cls() is virtual.SCHEDULERS[kind]
