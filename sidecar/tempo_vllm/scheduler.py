"""The classes for vLLM's `--scheduler-cls`; the only module here that imports vllm.

    --scheduler-cls tempo_vllm.scheduler.Tempo                  whichever of these the engine's settings ask for
    --scheduler-cls tempo_vllm.scheduler.TempoAsyncScheduler    engines with async scheduling (GPUs, by default)
    --scheduler-cls tempo_vllm.scheduler.TempoScheduler         engines without (CPUs)

If anything that Tempo needs can't be imported, they are vLLM's own schedulers under other names, and say so.
"""

import logging
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from tempo_vllm.status import Housekeeper, status_file

_log = logging.getLogger(f"vllm.{__name__}")

try:
    from vllm.v1.core.sched.request_queue import FCFSRequestQueue

    from tempo_vllm.mixin import TempoMixin
    from tempo_vllm.ranked_queue import RankedQueue

    class _Queue(RankedQueue, FCFSRequestQueue):  # type: ignore[misc]
        pass

    TempoMixin.ranked_queue = _Queue
except Exception as error:
    _log.exception("Tempo can't be loaded; the engine serves in vLLM's own order")
    _REASON = f"can't be loaded: {error}"

    class TempoMixin:  # type: ignore[no-redef]
        """Nothing of ours but the word that it is so."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if status_file():
                Housekeeper(lambda: {"state": "fallback", "reason": _REASON})


class TempoScheduler(TempoMixin, Scheduler):  # type: ignore[misc]
    """vLLM's scheduler, in Tempo's order."""


class TempoAsyncScheduler(TempoMixin, AsyncScheduler):  # type: ignore[misc]
    """vLLM's scheduler for pipelined engines, in Tempo's order."""


class Tempo:
    """Becomes the one of the two that fits: vLLM settles on async scheduling only once the engine starts."""

    def __new__(cls, vllm_config: Any, *args: Any, **kwargs: Any) -> Any:
        """A scheduler for `vllm_config`; the rest goes to it as it is."""
        fitting = TempoAsyncScheduler if vllm_config.scheduler_config.async_scheduling else TempoScheduler
        return fitting(vllm_config, *args, **kwargs)
