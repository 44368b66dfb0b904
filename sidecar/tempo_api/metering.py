"""What an answer says of itself as it passes: how many tokens, how it ended, whether it failed. No I/O here.

Understood are the streams and whole answers of chat completions, completions and responses.
"""

import re
from typing import Any, Final

import msgspec

SSE: Final = "text/event-stream"


class Usage(msgspec.Struct, frozen=True):
    """An answer's token counts, as the engine states them."""

    prompt_tokens: int
    completion_tokens: int


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
        """The stream's own last word was seen: `[DONE]`, or the event that ends a response."""
        self.failed = False
        """An error event was seen."""
        self.truncated = False
        """A choice ended because of its length limit."""
        self._drop_usage = drop_usage
        self._held = b""

    def feed(self, chunk: bytes) -> tuple[int, bytes]:
        """Take the next piece.

        Returns the number of new output tokens, as choices of complete events with something in them, and what may go
        on to the client.
        """
        data = self._held + chunk if self._held else chunk
        events = _BOUNDARY.split(data) if b"\r" in data else data.split(b"\n\n")
        held = events.pop()
        tokens = 0
        for event in events:
            tokens += self._read(event)
        if len(held) > _LONGEST_EVENT:
            held = b""
        self._held = held
        passed = data[: len(data) - len(held)] if held else data
        return tokens, _without_usage(passed) if self._drop_usage and self.usage else passed

    def close(self) -> bytes:
        """What is still held at a stream's regular end: a last event without its empty line."""
        held, self._held = self._held, b""
        return held

    def _read(self, event: bytes) -> int:
        payload = _payload(event)
        try:
            said = _DECODER.decode(payload)
        except _UNREADABLE:
            self.done = self.done or payload.strip() == b"[DONE]"
            return 0
        if said.type:
            return self._read_response_event(said)
        tokens = 0
        for choice in said.choices or ():
            delta = choice.delta
            if delta is None:
                tokens += bool(choice.text)
            elif delta.content or delta.tool_calls or delta.reasoning or delta.reasoning_content:
                tokens += 1
            if choice.finish_reason == "length":
                self.truncated = True
        if said.usage:
            self.usage = said.usage.read()
        if said.error:
            self.failed = True
        return tokens

    def _read_response_event(self, said: "_Said") -> int:
        """One of the Responses API's: each has a `type`, and the last brings the whole response."""
        if said.type.endswith(".delta"):
            return bool(said.delta)
        self.failed = self.failed or said.type in _FAILURES or bool(said.error)
        if said.type in _LAST:
            self.done = True
            if said.response:
                self.usage, self.truncated = said.response.read()
        return 0


class WholeMeter:
    """Keeps an answer that comes in one piece, and reads it at its end. One beyond 32 MiB passes unread."""

    __slots__ = ("_raw", "truncated", "usage")

    done = True
    failed = False

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.truncated = False
        self._raw: bytearray | None = bytearray()

    def feed(self, chunk: bytes) -> tuple[int, bytes]:
        """Take the next piece; it passes as it is, and its tokens count at the end."""
        if self._raw is not None:
            self._raw += chunk
            if len(self._raw) > _LONGEST_ANSWER:
                self._raw = None
        return 0, chunk

    def close(self) -> bytes:
        """Read the answer; nothing was held back."""
        if self._raw:
            self.usage, self.truncated = read_answer(self._raw)
        return b""


Meter = StreamMeter | WholeMeter


def meter_for(status: int, content_type: str, *, drop_usage: bool = False) -> Meter | None:
    """What reads an answer with this head; None for one that is neither a stream nor good JSON."""
    if status >= 400:
        return None
    if content_type == SSE:
        return StreamMeter(drop_usage=drop_usage)
    return WholeMeter() if content_type == "application/json" else None


def read_answer(raw: bytes | bytearray) -> tuple[Usage | None, bool]:
    """A whole answer's usage, and whether a choice ended because of its length limit; (None, False) if unreadable."""
    try:
        return _DECODER.decode(raw).read()
    except _UNREADABLE:
        return None, False


class _Counts(msgspec.Struct):
    """Usage under the names of chat completions and completions, or under those of responses."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def read(self) -> Usage:
        return Usage(self.prompt_tokens or self.input_tokens, self.completion_tokens or self.output_tokens)


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Said(msgspec.Struct):
    """What a stream's events and a whole answer have in common, of all kinds; `response` holds one of its own kind."""

    type: str = ""
    choices: list[_Choice] | None = None
    delta: Any = None
    usage: _Counts | None = None
    error: Any = None
    status: str | None = None
    response: "_Said | None" = None

    def read(self) -> tuple[Usage | None, bool]:
        cut = any(choice.finish_reason == "length" for choice in self.choices or ())
        return self.usage.read() if self.usage else None, cut or self.status == "incomplete"


_DECODER: Final = msgspec.json.Decoder(_Said)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_BOUNDARY: Final = re.compile(rb"\n\r?\n")
_EVENT: Final = re.compile(rb".*?(?:\n\r?\n|\Z)", re.DOTALL)
_LONGEST_EVENT: Final = 1 << 20
_LONGEST_ANSWER: Final = 32 << 20
_FAILURES: Final = frozenset({"error", "response.failed"})
_LAST: Final = _FAILURES | {"response.completed", "response.incomplete", "response.cancelled"}


def _payload(event: bytes) -> bytes:
    if event.startswith(b"data:") and b"\n" not in event:  # the usual case
        return event[5:]
    return b"\n".join([line[5:] for line in event.splitlines() if line.startswith(b"data:")])


def _without_usage(events: bytes) -> bytes:
    """Events without those that bring usage and nothing else."""
    return b"".join([event for event in _EVENT.findall(events) if not _is_usage(event)])


def _is_usage(event: bytes) -> bool:
    try:
        said = _DECODER.decode(_payload(event[:-2]))
    except _UNREADABLE:
        return False
    return said.usage is not None and not said.choices and not said.type
