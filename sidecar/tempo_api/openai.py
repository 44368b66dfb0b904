"""OpenAI's shapes: request bodies, errors, and streams of server-sent events. No I/O here."""

import re
from collections.abc import Mapping
from enum import Enum
from math import ceil
from typing import Any, Final, NamedTuple, Self

import msgspec
import orjson


class Ending(Enum):
    """Every way a request can end, the one vocabulary of errors, metrics and tests.

    The value is the name in metrics. `status`, `type` and `code` are what an OpenAI client sees; `dropped` is the word
    that llm-d's gateways use for a request dropped before it was served, where there is one.
    """

    COMPLETED = ("completed", 200, "", None)
    UNAUTHORIZED = ("unauthorized", 401, "invalid_request_error", "invalid_api_key")
    BAD_JSON = ("bad_json", 400, "invalid_request_error", "bad_json")
    INVALID_VALUE = ("invalid_value", 400, "invalid_request_error", "invalid_value")
    MODEL_NOT_FOUND = ("model_not_found", 404, "invalid_request_error", "model_not_found")
    UNKNOWN_PATH = ("unknown_path", 404, "invalid_request_error", "unknown_url")
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, "invalid_request_error", "method_not_supported")
    BODY_TOO_LARGE = ("body_too_large", 413, "invalid_request_error", "request_too_large")
    SATURATED = ("saturated", 429, "rate_limit_exceeded", "rate_limit_exceeded", "rejected-saturated")
    NO_REPLICA = ("no_replica", 503, "server_error", "service_unavailable", "rejected-no-endpoints")
    SHUTTING_DOWN = ("shutting_down", 503, "server_error", "service_unavailable", "rejected-shutting-down")
    DEADLINE_PASSED = ("deadline_passed", 504, "server_error", "deadline_passed", "rejected-ttl-expired")
    EVICTED = ("evicted", 503, "server_error", "evicted", "evicted")
    CLIENT_CLOSED = ("client_closed", 499, "server_error", "client_closed", "rejected-context-cancelled")
    UPSTREAM_REFUSED = ("upstream_refused", 502, "server_error", "upstream_refused")
    """The engine answered with an error of its own, which was passed on as it was."""
    UPSTREAM_FAILED = ("upstream_failed", 502, "server_error", "upstream_failed")
    UPSTREAM_TIMEOUT = ("upstream_timeout", 504, "server_error", "upstream_timeout")
    INTERNAL = ("internal", 500, "server_error", "internal_error")

    status: int
    type: str
    code: str | None
    dropped: str | None

    def __new__(cls, label: str, status: int, kind: str, code: str | None, dropped: str | None = None) -> Self:
        """A member: its name in metrics is its value, the rest are attributes."""
        self = object.__new__(cls)
        self._value_ = label
        self.status, self.type, self.code, self.dropped = status, kind, code, dropped
        return self


class APIError(Exception):
    """A request that is refused or ended badly; the shells turn it into an answer of OpenAI's shape.

    Args:
        ending: which way it ended.
        message: one sentence for the caller: what is wrong, and what to do where that helps.
        param: the field or header at fault.
        retry_after_s: when to come back, in seconds.

    """

    def __init__(
        self, ending: Ending, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.ending = ending
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """The answer's own headers: `Retry-After` in whole seconds, if there is one."""
        return {} if self.retry_after_s is None else {"Retry-After": str(max(1, ceil(self.retry_after_s)))}


def error_body(error: APIError) -> bytes:
    """`{"error": {message, type, param, code}}`."""
    ending = error.ending
    shape = {"message": error.message, "type": ending.type, "param": error.param, "code": ending.code}
    return orjson.dumps({"error": shape})


def error_event(error: APIError) -> bytes:
    """What ends a stream that broke: an error event, on which OpenAI's clients raise, then `[DONE]`."""
    return b"data: " + error_body(error) + b"\n\ndata: [DONE]\n\n"


_FIELDS: Final[Mapping[str, tuple[type, str]]] = {
    "model": (str, "a string"),
    "stream": (bool, "true or false"),
    "max_tokens": (int, "an integer"),
    "max_completion_tokens": (int, "an integer"),
    "n": (int, "an integer"),
    "user": (str, "a string"),
    "service_tier": (str, "a string"),
    "stream_options": (dict, "an object"),
    "vllm_xargs": (dict, "an object"),
}
"""The fields that Tempo itself reads; the engine judges the others."""


def parse_body(raw: bytes) -> dict[str, Any]:
    """A completion request's body; the fields that Tempo reads have their types, or are absent or null.

    Raises:
        APIError: `BAD_JSON` for anything but a JSON object, `INVALID_VALUE` for a field of the wrong type.

    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise APIError(Ending.BAD_JSON, f"The body is not valid JSON: {error}.") from error
    if not isinstance(body, dict):
        raise APIError(Ending.BAD_JSON, "The body must be a JSON object.")
    for name, (kind, wanted) in _FIELDS.items():
        value = body.get(name)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise APIError(Ending.INVALID_VALUE, f"'{name}' must be {wanted}.", param=name)
    return body


def output_cap(body: Mapping[str, Any]) -> int | None:
    """The most output tokens that the caller asks for; None: as many as the model likes."""
    newer: int | None = body.get("max_completion_tokens")
    return newer if newer is not None else body.get("max_tokens")


class Usage(msgspec.Struct, frozen=True):
    """An answer's token counts, as the engine states them."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None

    @property
    def has_output(self) -> bool:
        delta = self.delta
        if delta is None:
            return bool(self.text)
        return bool(delta.content or delta.reasoning or delta.reasoning_content or delta.tool_calls)


class _Answer(msgspec.Struct):
    """What a stream's event and a whole answer have in common."""

    choices: list[_Choice] = []
    usage: Usage | None = None
    error: Any = None


_DECODER: Final = msgspec.json.Decoder(_Answer)
_BOUNDARY: Final = re.compile(rb"\n\r?\n")
_LONGEST_EVENT: Final = 1 << 20


class Fed(NamedTuple):
    """What one chunk of a stream brought."""

    tokens: int
    """New output tokens: choices of complete events with something in them."""
    passed: bytes
    """What may go on to the client."""


class StreamMeter:
    """Reads a stream of server-sent events as it passes, in whatever pieces the network made of it.

    Only complete events are passed on, unchanged, so that a stream that breaks can still be ended by an error event.
    With `drop_usage` the extra last event that `stream_options.include_usage` brings is kept back too. An event that
    does not parse counts nothing; one longer than a mebibyte is passed on as it comes.
    """

    __slots__ = ("_drop_usage", "_held", "done", "failed", "truncated", "usage")

    def __init__(self, *, drop_usage: bool = False) -> None:
        self.usage: Usage | None = None
        self.done = False
        """`[DONE]` was seen."""
        self.failed = False
        """An error event was seen."""
        self.truncated = False
        """A choice ended because of its length limit."""
        self._drop_usage = drop_usage
        self._held = b""

    def feed(self, chunk: bytes) -> Fed:
        """Take the next piece."""
        data = self._held + chunk if self._held else chunk
        tokens, start, kept = 0, 0, []
        for boundary in _BOUNDARY.finditer(data):
            event = data[start : boundary.end()]
            start = boundary.end()
            count, passes = self._read(event)
            tokens += count
            if passes:
                kept.append(event)
        self._held = data[start:]
        if len(self._held) > _LONGEST_EVENT:
            kept.append(self.close())
        return Fed(tokens, b"".join(kept))

    def close(self) -> bytes:
        """What is still held at a stream's regular end: a last event without its empty line."""
        held, self._held = self._held, b""
        return held

    def _read(self, event: bytes) -> tuple[int, bool]:
        lines = event.splitlines()
        payload = b"\n".join([line[5:] for line in lines if line.startswith(b"data:")]).strip()
        if payload == b"[DONE]":
            self.done = True
            return 0, True
        try:
            answer = _DECODER.decode(payload)
        except msgspec.DecodeError:
            return 0, True
        self.usage = answer.usage or self.usage
        self.failed = self.failed or bool(answer.error)
        self.truncated = self.truncated or _is_truncated(answer)
        dropped = self._drop_usage and answer.usage is not None and not answer.choices
        return sum([choice.has_output for choice in answer.choices]), not dropped


def read_answer(raw: bytes) -> tuple[Usage | None, bool]:
    """A whole answer's usage, and whether a choice ended because of its length limit; (None, False) if unreadable."""
    try:
        answer = _DECODER.decode(raw)
    except msgspec.DecodeError:
        return None, False
    return answer.usage, _is_truncated(answer)


def _is_truncated(answer: _Answer) -> bool:
    return any(choice.finish_reason == "length" for choice in answer.choices)
