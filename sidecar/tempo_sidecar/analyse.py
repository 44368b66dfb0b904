"""The request analyser: what the engine is told of a request, and what its body becomes. Pure functions."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from tempo_api.manifest import Pool
from tempo_api.openai import APIError, Ending, Endpoint, output_cap
from tempo_api.prompt import prompt_estimate
from tempo_api.wire import Facts, Intake, encode_facts, strip_reserved
from tempo_core.slo import Pattern, SLOClass
from tempo_sidecar.lengths import LengthModel, LengthQuery, Prediction

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
"""A JSON object whose values stay the bytes that they came in."""
_DISPOSITION: Final = b"content-disposition:"
_LONGEST_HEADER: Final = 8 << 10
_NAME: Final = re.compile(rb"""(?:;|\s)name(?:\*[^=]*)?\s*=\s*([^;\r]*)""")
_PLAIN_NAME: Final = re.compile(rb"""[\w.\[\]-]+|"[\w.\[\]-]+["]""")
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
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
    endpoint: Endpoint

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
    if intake.ttft_s is None and intake.tbt_s is None:
        return slo
    given = {"ttft_s": intake.ttft_s, "tbt_s": intake.tbt_s}
    looser = {name: value for name, value in given.items() if value is not None}
    return replace(slo, objectives=replace(slo.objectives, **looser))


def analyse(
    intake: Intake, body: Mapping[str, Any], pool: Pool, lengths: LengthModel, now_s: float, *, endpoint: Endpoint
) -> Work:
    """A request that reaches the sidecar at `now_s`. A class that the pool does not know is served as its default."""
    slo = granted(pool.classes.get(intake.slo_class, pool.default), intake)
    arrival_s = now_s - max(intake.elapsed_s, 0.0)
    deadline_s = None if intake.deadline_s is None else max(arrival_s + intake.deadline_s, 0.0)
    prompt_tokens, prompts = prompt_estimate(body)
    cap = output_cap(body)
    cap = _COMPLETIONS_CAP if cap is None and endpoint is Endpoint.COMPLETIONS else cap
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
        tools=1.0 if intake.tools else None,
        tenant=intake.tenant or None,
        degraded=1.0 if intake.degraded else None,
    )
    single = prompts == 1 and (body.get("n") or 1) == 1
    return Work(slo, arrival_s, deadline_s, prompt_tokens, single, facts, predicted, endpoint)


def engine_body(raw: bytes, body: Mapping[str, Any], work: Work) -> bytes:
    """The body that the engine gets: with the metadata, and for a stream with its usage asked for.

    Every other value stays byte for byte what the caller sent. `body` is what `parse_body` made of `raw`.

    Raises:
        APIError: `BAD_JSON` if it is nested too deeply to be read.

    """
    try:
        sent: dict[str, Any] = _object(raw)
    except RecursionError as error:
        raise APIError(Ending.BAD_JSON, "The body is nested too deeply.") from error
    sent["vllm_xargs"] = strip_reserved(_object(sent.get("vllm_xargs"))) | encode_facts(work.facts)
    sent["priority"] = work.priority
    if body.get("stream") and work.endpoint is not Endpoint.RESPONSES:  # whose last event always has it
        options = _object(sent.get("stream_options"))
        if not asks_usage(body):
            # With usage on, this one would add it to every event, which the caller did not ask for.
            options.pop("continuous_usage_stats", None)
        sent["stream_options"] = options | {"include_usage": True}
    return msgspec.json.encode(sent)


def without_reserved(raw: bytes) -> bytes:
    """The body of a request on any other path, without what only Tempo may say.

    What is no JSON object, or has none of that, is returned as it came.

    Raises:
        APIError: `BAD_JSON` for what an engine would read, more leniently, as JSON that says it; `INVALID_VALUE` for a
            form that may.

    """
    try:
        sent: dict[str, Any] = _object(raw)
    except _UNREADABLE:
        return _without_lenient(raw)
    reserved = sent.pop("priority", None) is not None
    try:
        xargs = _object(sent.get("vllm_xargs"))
    except _UNREADABLE:
        xargs = {}
    if len(own := strip_reserved(xargs)) < len(xargs):
        sent["vllm_xargs"], reserved = own, True
    return msgspec.json.encode(sent) if reserved else raw


def _without_lenient(raw: bytes) -> bytes:
    """Python's own parser takes other encodings, and NaN; vLLM uses it."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        _check_form(raw)
        return raw
    if isinstance(body, dict) and not body.keys().isdisjoint({"priority", "vllm_xargs"}):
        raise APIError(Ending.BAD_JSON, "The body is not valid JSON.")
    return raw


def _check_form(raw: bytes) -> None:
    """Refuse a multipart form, as of audio, in which `vllm_xargs` is said, or a name that hides what it is."""
    lower, at = raw.lower(), -1
    while (at := lower.find(_DISPOSITION, at + 1)) >= 0:
        header = lower[at : at + _LONGEST_HEADER].split(b"\n", 1)[0]
        names = [name.strip() for name in _NAME.findall(header)]
        if len(names) > 1 or not all(map(_PLAIN_NAME.fullmatch, names)):
            raise APIError(
                Ending.INVALID_VALUE, "Every part of a form must have one name, of letters, digits and _.-[]."
            )
        if names and names[0].strip(b'"') == b"vllm_xargs":
            message = "'vllm_xargs' can't be sent in a form here; leave it out."
            raise APIError(Ending.INVALID_VALUE, message, param="vllm_xargs")


def asks_usage(body: Mapping[str, Any]) -> bool:
    """Whether the caller wants the usage event at the end of its stream."""
    return bool((body.get("stream_options") or {}).get("include_usage"))


def _object(raw: bytes | msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    return (raw and _OBJECT.decode(raw)) or {}
