"""Answers of a given length, which nobody but the sampler knows: for replaying workloads, never for serving.

    --logits-processors tempo_vllm.forced_lengths:ForcedLengths

works with both of vLLM's model runners: V1 (CPUs; older versions) and V2 (GPUs, in newer versions).

A request says `vllm_xargs: {"forced_output_tokens": n}`. Tokens that would stop it are forbidden for n - 1 tokens, and
one of them is forced as the n-th, so `usage.completion_tokens` is n. Its `max_tokens` stays the caller's cap, which is
all that scheduler, sidecar and router see: none of them reads this argument. A request without it is left alone.

Lengths can't be forced beyond `max_tokens` or the model's longest sequence, with `ignore_eos`, or where the model has
no token that stops it; the client has to compare. Nothing of Tempo is imported here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

import numpy as np
import torch
from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates

try:
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as LogitsProcessorV2
except ImportError:  # a version without model runner V2
    LogitsProcessorV2 = object

XARG: Final = "forced_output_tokens"


def forced_tokens(params: Any) -> int | None:
    """The answer's length that a request's `SamplingParams` ask for; None: whatever the model likes.

    Raises:
        ValueError: for anything but a whole number from 1 to `max_tokens`, or together with `ignore_eos`.

    """
    wanted = (params.extra_args or {}).get(XARG)
    if wanted is None:
        return None
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= (params.max_tokens or inf):
        raise ValueError(f"{XARG} must be a whole number from 1 to max_tokens, not {wanted!r}")
    if params.ignore_eos:
        raise ValueError(f"{XARG} ends an answer with the end token; don't set ignore_eos")
    return wanted


class _Mask:
    """Which logits a step forbids, and which it forces, as tensors that are made anew only where they change."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seen: object = None

    def apply(self, logits: torch.Tensor, rows: Sequence[tuple[int, Sequence[int], bool]]) -> torch.Tensor:
        """Change `logits` in place. `rows`: (row, tokens that stop it, whether it stops now) of each forced request."""
        if rows != self._seen:
            self._seen = rows
            self._forbidden = self._pairs((row, stop) for row, stops, _ in rows for stop in stops)
            self._forced = self._pairs((row, stops[0]) for row, stops, now in rows if now and stops)
        logits[self._forbidden] = -inf
        if len(self._forced[0]):
            logits[self._forced[0]] = -inf
            logits[self._forced] = 0.0
        return logits

    def _pairs(self, pairs: Iterable[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        rows, tokens = torch.tensor(list(pairs), dtype=torch.int64).reshape(-1, 2).T.to(self._device)
        return rows, tokens


@dataclass(frozen=True, slots=True)
class _Forced:
    tokens: int
    stops: tuple[int, ...]
    output: Sequence[int]
    """The request's own list, which grows."""


class ForcedLengthsV1(LogitsProcessor):  # type: ignore[misc]  # vLLM is not read by the checker
    """For model runner V1."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:  # noqa: ARG002  # vLLM's signature
        self._mask = _Mask(device)
        self._forced: dict[int, _Forced] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request that asks for what can't be (HTTP 400)."""
        forced_tokens(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """Greedy answers change too."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow requests to their rows."""
        process_dict_updates(self._forced, batch_update, _entered)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Forbid, or force, in place."""
        rows = [(row, it.stops, len(it.output) + 1 >= it.tokens) for row, it in self._forced.items()]
        return self._mask.apply(logits, rows) if rows else logits


def _entered(params: Any, _: object, output: Sequence[int]) -> _Forced | None:
    tokens = forced_tokens(params)
    return None if tokens is None else _Forced(tokens, _stops(params), output)


def _stops(params: Any) -> tuple[int, ...]:
    """Every token that ends the request: the model's own and the caller's."""
    return tuple(sorted(params.all_stop_token_ids))


class ForcedLengthsV2(LogitsProcessorV2):  # type: ignore[misc]
    """For model runner V2, without speculative decoding: there, a row of logits is a place in the batch."""

    def __init__(self, vllm_config: Any, req_states: Any) -> None:  # noqa: ARG002  # vLLM's signature
        self._mask = _Mask(req_states.device)
        self._prompt_tokens = req_states.prompt_len.np
        self._length = np.zeros(req_states.max_num_reqs, dtype=np.int64)  # prompt and answer; 0: not forced
        self._stops: dict[int, tuple[int, ...]] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request that asks for what can't be (HTTP 400)."""
        forced_tokens(sampling_params)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """A request takes this slot; whether it is forced."""
        tokens = forced_tokens(sampling_params)
        self._length[req_idx] = 0 if tokens is None else int(self._prompt_tokens[req_idx]) + tokens
        self._stops[req_idx] = _stops(sampling_params)
        return tokens is not None

    def apply(self, logits: torch.Tensor, ctx: Any) -> torch.Tensor:
        """Forbid, or force, in place."""
        slots = ctx.idx_mapping_np
        lengths = self._length[slots]
        last = ctx.seq_lens_upper_bound_np[: len(slots)] + 1 >= lengths
        rows = [(row, self._stops[slots[row]], bool(last[row])) for row in np.flatnonzero(lengths).tolist()]
        return self._mask.apply(logits, rows) if rows else logits


class ForcedLengths(LogitsProcessor, LogitsProcessorV2):  # type: ignore[misc]
    """Becomes the one of the two that fits: each runner wants a class of its own kind and calls it in its own way."""

    def __new__(cls, vllm_config: Any, *runners: Any, **named: Any) -> Any:
        """`runners`: `device, is_pin_memory` from V1, `req_states` from V2."""
        fitting = ForcedLengthsV2 if len(runners) + len(named) == 1 else ForcedLengthsV1
        return fitting(vllm_config, *runners, **named)

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request that asks for what can't be (HTTP 400)."""
        forced_tokens(sampling_params)
