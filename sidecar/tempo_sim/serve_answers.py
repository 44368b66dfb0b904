"""What the simulated engine says, in the shapes of OpenAI's endpoints as vLLM fills them."""

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from math import exp
from random import Random
from typing import Any, ClassVar, Final

import orjson

from tempo_api.openai import APIError, Ending, output_cap
from tempo_sim.profiles import EngineProfile

WORDS: Final = ("Simulated", " answer:", " no", " model", " runs", " here,", " only", " its", " pace.")
"""Each stands for a token; they come round again until the answer is as long as it is to be."""
XARG_TOKENS: Final = "forced_output_tokens"
"""The argument by which a load generator says how long the answer is to be, as with the real engine."""
_BYTES_A_TOKEN: Final = 4
_MEDIAN_TOKENS, _SPREAD = 150.0, 0.8


class Answer(ABC):
    """How long an answer is, and what all kinds of it have in common.

    Args:
        body: of the request.
        model: the one that is served.
        profile: the engine's.

    Raises:
        APIError: `INVALID_VALUE` or `MODEL_NOT_FOUND`, for a request that can't be served.

    """

    asks_by: ClassVar[str]
    """The field that holds the prompt."""
    usual_cap: ClassVar[int | None] = None
    """On its tokens, where the request has none; None: what the cache has room for."""

    def __init__(self, body: Mapping[str, Any], model: str, profile: EngineProfile) -> None:
        if (body.get("n") or 1) != 1:
            raise APIError(Ending.INVALID_VALUE, "The simulated engine gives one choice.", param="n")
        check_model(body, model)
        content = body.get(self.asks_by)
        if not content:
            raise APIError(Ending.INVALID_VALUE, f"`{self.asks_by}` is required.", param=self.asks_by)
        self.prompt_tokens = _count(content)
        room = profile.kv_tokens - self.prompt_tokens
        if room < 1:
            raise APIError(Ending.INVALID_VALUE, f"The prompt is longer than {profile.kv_tokens} tokens.")
        asked = output_cap(body)
        self.cap = max(1, min(room, (self.usual_cap or room) if asked is None else asked))
        self.tokens = min(self.cap, _length(body, content))
        self.body = body
        self._model = model
        self._number = f"sim-{time.time_ns():x}"
        self._created = int(time.time())

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(_word(index) for index in range(self.tokens))

    @abstractmethod
    def whole(self) -> dict[str, Any]:
        """Without streaming."""

    def begin(self) -> Iterator[bytes]:
        """Events before the first token."""
        return iter(())

    @abstractmethod
    def token(self, index: int) -> bytes:
        """The event of one token."""

    @abstractmethod
    def end(self) -> Iterator[bytes]:
        """Events after the last one."""


class Completion(Answer):
    """`/v1/completions`."""

    asks_by = "prompt"
    usual_cap: ClassVar[int | None] = 16
    _names: ClassVar[tuple[str, str, str]] = ("cmpl", "text_completion", "text_completion")

    def whole(self) -> dict[str, Any]:
        """See `Answer`."""
        return {**self._head(self._names[1]), "choices": [self._choice(self._all(), last=True)], "usage": self._usage()}

    def token(self, index: int) -> bytes:
        """See `Answer`."""
        choice = self._choice(self._part(index), last=index == self.tokens - 1)
        return _event({**self._head(self._names[2]), "choices": [choice]})

    def end(self) -> Iterator[bytes]:
        """See `Answer`."""
        if (self.body.get("stream_options") or {}).get("include_usage"):
            yield _event({**self._head(self._names[2]), "choices": [], "usage": self._usage()})
        yield b"data: [DONE]\n\n"

    def _all(self) -> dict[str, Any]:
        return {"text": self.text}

    def _part(self, index: int) -> dict[str, Any]:
        return {"text": _word(index)}

    def _head(self, kind: str) -> dict[str, Any]:
        id_ = f"{self._names[0]}-{self._number}"
        return {"id": id_, "object": kind, "created": self._created, "model": self._model}

    def _choice(self, part: dict[str, Any], *, last: bool) -> dict[str, Any]:
        ended = "length" if self.tokens == self.cap else "stop"
        return {"index": 0, **part, "finish_reason": ended if last else None}

    def _usage(self) -> dict[str, int]:
        total = self.prompt_tokens + self.tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.tokens, "total_tokens": total}


class Chat(Completion):
    """`/v1/chat/completions`."""

    asks_by = "messages"
    usual_cap = None
    _names = ("chatcmpl", "chat.completion", "chat.completion.chunk")

    def _all(self) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": self.text}}

    def _part(self, index: int) -> dict[str, Any]:
        role = {} if index else {"role": "assistant"}
        return {"delta": {"content": _word(index), **role}}


class Response(Answer):
    """`/v1/responses`."""

    asks_by = "input"

    def __init__(self, body: Mapping[str, Any], model: str, profile: EngineProfile) -> None:
        super().__init__(body, model, profile)
        self._item = f"msg_{self._number}"
        self._events = 0

    def whole(self) -> dict[str, Any]:
        """See `Answer`."""
        cut = self.tokens == self.cap
        usage = {
            "input_tokens": self.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt_tokens + self.tokens,
        }
        why = {"incomplete_details": {"reason": "max_output_tokens"}} if cut else {}
        return self._response(
            "incomplete" if cut else "completed", output=[self._message(self.text)], usage=usage, **why
        )

    def begin(self) -> Iterator[bytes]:
        """See `Answer`."""
        for kind in ("created", "in_progress"):
            yield self._event(kind, response=self._response("in_progress", output=[], usage=None))
        yield self._event("output_item.added", output_index=0, item=self._message(None))
        yield self._event("content_part.added", **self._place, part=_text(""))

    def token(self, index: int) -> bytes:
        """See `Answer`."""
        return self._event("output_text.delta", **self._place, delta=_word(index), logprobs=[])

    def end(self) -> Iterator[bytes]:
        """See `Answer`."""
        yield self._event("output_text.done", **self._place, text=self.text, logprobs=[])
        yield self._event("content_part.done", **self._place, part=_text(self.text))
        yield self._event("output_item.done", output_index=0, item=self._message(self.text))
        yield self._event("completed", response=self.whole())

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item, "output_index": 0, "content_index": 0}

    def _response(self, status: str, **fields: Any) -> dict[str, Any]:
        body = self.body
        asked = {name: body.get(name) for name in ("instructions", "metadata", "previous_response_id", "text", "user")}
        return {
            "id": f"resp_{self._number}", "object": "response", "created_at": self._created, "model": self._model,
            "status": status, "incomplete_details": None, **asked, "background": False, "max_output_tokens": self.cap,
            "parallel_tool_calls": True, "service_tier": "auto", "temperature": body.get("temperature") or 1.0,
            "tool_choice": body.get("tool_choice") or "auto", "tools": body.get("tools") or [],
            "top_p": body.get("top_p") or 1.0, "truncation": "disabled", **fields,
        }  # fmt: skip

    def _message(self, text: str | None) -> dict[str, Any]:
        """The one item of the output; without a text it is still to come."""
        said: dict[str, Any] = {"content": [], "status": "in_progress"}
        if text is not None:
            said = {"content": [_text(text)], "status": "completed"}
        return {"id": self._item, "type": "message", "role": "assistant", **said}

    def _event(self, kind: str, **fields: Any) -> bytes:
        kind, number, self._events = f"response.{kind}", self._events, self._events + 1
        return f"event: {kind}\n".encode() + _event({"type": kind, "sequence_number": number, **fields})


ANSWERS: Final[dict[str, type[Answer]]] = {
    "/v1/chat/completions": Chat,
    "/v1/completions": Completion,
    "/v1/responses": Response,
}
"""By path."""


def check_model(body: Mapping[str, Any], model: str) -> None:
    """Whether the request is for the model that is served.

    Raises:
        APIError: `MODEL_NOT_FOUND`.

    """
    asked_for = body.get("model")
    if asked_for not in {None, model}:
        raise APIError(Ending.MODEL_NOT_FOUND, f"The model `{asked_for}` does not exist; it is `{model}`.")


def token_ids(content: object) -> list[int]:
    """The tokens of a prompt: four bytes are one, of text or of the JSON of messages; ids are taken as they are."""
    if isinstance(content, list) and content and isinstance(content[0], int):
        return content
    data = content.encode(errors="replace") if isinstance(content, str) else orjson.dumps(content)
    return [int.from_bytes(data[at : at + _BYTES_A_TOKEN]) for at in range(0, len(data), _BYTES_A_TOKEN)]


def text_of(tokens: list[int]) -> str:
    """The reverse of `token_ids` for text."""
    parts = [token.to_bytes((token.bit_length() + 7) // 8) for token in tokens]
    return b"".join(parts).decode(errors="replace")


def xargs_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The request's `vllm_xargs`."""
    xargs = body.get("vllm_xargs")
    return xargs if isinstance(xargs, Mapping) else {}


def _count(content: object) -> int:
    return max(len(token_ids(content)), 1)


def _length(body: Mapping[str, Any], content: object) -> int:
    """How long the answer would be: as the caller forces it, or drawn by its prompt, the same for the same one."""
    forced = xargs_of(body).get(XARG_TOKENS)
    if isinstance(forced, int) and forced > 0:
        return forced
    if body.get("ignore_eos"):
        return 1 << 31
    seed = hashlib.sha256(orjson.dumps([content, body.get("seed")])).digest()
    return max(1, round(_MEDIAN_TOKENS * exp(Random(seed).gauss(0.0, _SPREAD))))  # noqa: S311  # draws, hides nothing


def _word(index: int) -> str:
    word = WORDS[index % len(WORDS)]
    return f" {word}" if index and index % len(WORDS) == 0 else word


def _text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"
