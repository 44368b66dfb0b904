"""The request analyser: what the engine is told of a request, and what its body becomes. Pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from tempo_api.manifest import Pool
from tempo_api.openai import APIError, Ending, output_cap
from tempo_api.wire import Facts, Intake, encode_facts, strip_reserved
from tempo_core.slo import Pattern, SLOClass
from tempo_sidecar.lengths import LengthModel, LengthQuery, Prediction

_CHARACTERS_A_TOKEN: Final = 4
_COMPLETIONS_CAP: Final = 16
"""`max_tokens` of /v1/completions where the caller gives none: OpenAI's default, and vLLM's."""
_LAX_S: Final = 3600.0
"""In the fallback order a request without a deadline comes after whatever is due within this time."""


@dataclass(frozen=True, slots=True)
class Work:
    """A request as the sidecar serves it. Times are absolute seconds."""

    slo: SLOClass
    arrival_s: float
    deadline_s: float | None
    prompt_tokens: int
    """An estimate; the sidecar does not tokenise."""
    single: bool
    """One prompt, one choice: its length can be compared with the prediction."""
    facts: Facts
    lengths: Prediction

    @property
    def priority(self) -> int:
        """The engine's own `priority`, in case the scheduler plug-in is not active: the earliest due first, in ms."""
        due_s = self.deadline_s
        if due_s is None:
            lax_s = self.slo.objectives.ttft_s if self.slo.pattern is Pattern.LATENCY else _LAX_S
            due_s = self.arrival_s + lax_s
        return round(due_s * 1e3)


def granted(slo: SLOClass, intake: Intake) -> SLOClass:
    """`slo` with the looser targets that the router granted the caller."""
    given = {"ttft_s": intake.ttft_s, "tbt_s": intake.tbt_s}
    looser = {name: value for name, value in given.items() if value is not None}
    return replace(slo, objectives=replace(slo.objectives, **looser)) if looser else slo


def analyse(
    intake: Intake, body: Mapping[str, Any], pool: Pool, lengths: LengthModel, now_s: float, *, chat: bool
) -> Work:
    """A request that reaches the sidecar at `now_s`. A class that the pool does not know is served as its default."""
    slo = granted(pool.classes.get(intake.slo_class, pool.default), intake)
    arrival_s = now_s - max(intake.elapsed_s, 0.0)
    deadline_s = None if intake.deadline_s is None else max(arrival_s + intake.deadline_s, 0.0)
    prompt_tokens, prompts = prompt_estimate(body)
    cap = output_cap(body)
    cap = _COMPLETIONS_CAP if cap is None and not chat else cap
    predicted = lengths.predict(LengthQuery(slo.name, prompt_tokens, cap, intake.stage, body))
    facts = Facts(
        slo_class=slo.name,
        arrival_s=arrival_s,
        ttft_s=intake.ttft_s,
        tbt_s=intake.tbt_s,
        deadline_s=deadline_s,
        lengths=predicted.grid,
        program=intake.program,
        program_arrival_s=None if intake.program is None else arrival_s - intake.program_elapsed_s,
        banked_gain=intake.banked_gain or None,
        latest_s=None if intake.latest_s is None else max(arrival_s + intake.latest_s, 0.0),
        later_prompt_tokens=intake.later_prompt_tokens or None,
        later_output_tokens=intake.later_output_tokens or None,
        tenant=intake.tenant or None,
    )
    single = prompts == 1 and (body.get("n") or 1) == 1
    return Work(slo, arrival_s, deadline_s, prompt_tokens, single, facts, predicted)


def prompt_estimate(body: Mapping[str, Any]) -> tuple[int, int]:
    """About how many tokens the prompt has, and how many prompts there are. Token ids are counted, text is guessed."""
    prompt = body.get("prompt")
    if not isinstance(prompt, list) or not prompt:
        return _tokens(_characters(prompt if isinstance(prompt, str) else body.get("messages"))), 1
    if isinstance(prompt[0], int):
        return len(prompt), 1
    return sum(len(p) if isinstance(p, list) else _tokens(_characters(p)) for p in prompt), len(prompt)


def engine_body(body: Mapping[str, Any], work: Work) -> bytes:
    """The body that the engine gets: with the metadata, and for a stream with its usage asked for.

    Raises:
        APIError: `BAD_JSON` if it is nested too deeply to be written.

    """
    sent = dict(body)
    sent["vllm_xargs"] = strip_reserved(body.get("vllm_xargs") or {}) | encode_facts(work.facts)
    sent["priority"] = work.priority
    if body.get("stream"):
        options = dict(body.get("stream_options") or {})
        if not asks_usage(body):
            # With usage on, this one would add it to every event, which the caller did not ask for.
            options.pop("continuous_usage_stats", None)
        sent["stream_options"] = options | {"include_usage": True}
    try:
        return orjson.dumps(sent)
    except orjson.JSONEncodeError as error:
        raise APIError(Ending.BAD_JSON, "The body is nested too deeply.") from error


def without_reserved(raw: bytes) -> bytes:
    """The body of a request on any other path, without extra arguments that only Tempo may set.

    What is no JSON, or has none of them, is returned as it came.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw
    xargs = body.get("vllm_xargs") if isinstance(body, dict) else None
    if not isinstance(xargs, dict) or len(own := strip_reserved(xargs)) == len(xargs):
        return raw
    return orjson.dumps(body | {"vllm_xargs": own})


def asks_usage(body: Mapping[str, Any]) -> bool:
    """Whether the caller wants the usage event at the end of its stream."""
    return bool((body.get("stream_options") or {}).get("include_usage"))


def _characters(content: object, depth: int = 4) -> int:
    """Characters of text in a prompt, or in messages and the parts of their contents; nothing nests deeper."""
    if isinstance(content, str):
        return len(content)
    if isinstance(content, dict):
        return _characters(content.get("content"), depth) + _characters(content.get("text"), 0)
    if isinstance(content, list) and depth:
        return sum(_characters(part, depth - 1) for part in content)
    return 0


def _tokens(characters: int) -> int:
    return characters // _CHARACTERS_A_TOKEN + 1
