"""OpenAI's shapes: endpoints, errors, and what Tempo reads of a request's body. No I/O here."""

from collections.abc import Mapping
from enum import Enum
from math import ceil
from typing import Any, Final, Self

import orjson


class Endpoint(Enum):
    """The paths that generate text, and are served by class; what else an engine has passes as it is."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    RESPONSES = "/v1/responses"


PLAIN_PATHS: Final = (
    "/tokenize", "/detokenize", "/pooling", "/classify", "/score", "/rerank", "/v2/rerank",
)  # fmt: skip
"""What vLLM serves to callers outside of `/v1`; its other paths are for whoever runs it."""


class Ending(Enum):
    """Every way a request can end, the one vocabulary of errors, metrics and tests.

    The value is the name in metrics. `status`, `type` and `code` are what an OpenAI client sees; `dropped` is the word
    that llm-d's gateways use for a request dropped before it was served, where there is one.
    """

    COMPLETED = ("completed", 200, "", None)
    UNAUTHORIZED = ("unauthorized", 401, "invalid_request_error", "invalid_api_key")
    CLASS_NOT_ALLOWED = ("class_not_allowed", 403, "invalid_request_error", "class_not_allowed")
    BAD_JSON = ("bad_json", 400, "invalid_request_error", "bad_json")
    INVALID_VALUE = ("invalid_value", 400, "invalid_request_error", "invalid_value")
    MODEL_NOT_FOUND = ("model_not_found", 404, "invalid_request_error", "model_not_found")
    UNKNOWN_PATH = ("unknown_path", 404, "invalid_request_error", "unknown_url")
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, "invalid_request_error", "method_not_supported")
    BODY_TOO_LARGE = ("body_too_large", 413, "invalid_request_error", "request_too_large")
    HEADERS_TOO_LARGE = ("headers_too_large", 431, "invalid_request_error", "headers_too_large")
    SATURATED = ("saturated", 429, "rate_limit_exceeded", "rate_limit_exceeded", "rejected-saturated")
    OVER_CEILING = ("over_ceiling", 429, "rate_limit_exceeded", "rate_limit_exceeded", "rejected-saturated")
    """The caller has as many requests in flight as its API key may have."""
    SHED = ("shed", 429, "rate_limit_exceeded", "rate_limit_exceeded", "evicted-queue-pressure")
    QUEUE_TIMEOUT = ("queue_timeout", 429, "rate_limit_exceeded", "rate_limit_exceeded", "rejected-ttl-expired")
    """It was held for as long as its class may wait."""
    NO_REPLICA = ("no_replica", 503, "server_error", "service_unavailable", "rejected-no-endpoints")
    SHUTTING_DOWN = ("shutting_down", 503, "server_error", "service_unavailable", "rejected-shutting-down")
    DEADLINE_PASSED = ("deadline_passed", 504, "server_error", "deadline_passed", "rejected-ttl-expired")
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


CALLERS_OWN: Final = frozenset({Ending.CLIENT_CLOSED, Ending.OVER_CEILING})
"""Endings that have llm-d's word for a drop, and yet say nothing of how the pool fares."""


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
        """The answer's own headers: `Retry-After` in whole seconds, if there is one, and how to name a key."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(max(1, ceil(self.retry_after_s)))}
        if self.ending is Ending.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


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
    "max_output_tokens": (int, "an integer"),
    "n": (int, "an integer"),
    "user": (str, "a string"),
    "service_tier": (str, "a string"),
    "stream_options": (dict, "an object"),
    "vllm_xargs": (dict, "an object"),
}
"""The fields that Tempo itself reads; the engine judges the others."""
_LARGEST: Final = 2**53
"""Below it a float holds every integer."""


def parse_body(raw: bytes) -> dict[str, Any]:
    """A request's body; the fields that Tempo reads have their types, or are absent or null.

    Of a field that is there twice the last counts, as it does for vLLM. A number that no float holds is refused.

    Raises:
        APIError: `BAD_JSON` for anything but a JSON object, `INVALID_VALUE` for a field of the wrong type.

    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise APIError(Ending.BAD_JSON, f"The body is not valid JSON: {error}.") from error
    if not isinstance(body, dict):
        raise APIError(Ending.BAD_JSON, "The body must be a JSON object.")
    for name in [name for name in body if name in _FIELDS]:
        value, (kind, wanted) = body[name], _FIELDS[name]
        if type(value) is kind or value is None:  # and not isinstance, for which True is an integer
            continue
        if kind is not int or not isinstance(value, float) or not value.is_integer() or abs(value) >= _LARGEST:
            raise APIError(Ending.INVALID_VALUE, f"'{name}' must be {wanted}.", param=name)
        body[name] = int(value)  # what a client's arithmetic makes of an integer, and vLLM takes for one
    return body


def output_cap(body: Mapping[str, Any]) -> int | None:
    """The most output tokens that the caller asks for; None: as many as the model likes."""
    for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
        cap: int | None = body.get(name)
        if cap is not None:
            return cap
    return None
