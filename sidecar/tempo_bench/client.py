"""One request to an OpenAI endpoint, stamped: plain aiohttp, any server.

Streams ask for usage with every chunk (vLLM's `continuous_usage_stats`), because several tokens may share one; a
server that ignores this is counted one token a chunk and put right by the usage at the end.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiohttp
import msgspec
import orjson

from tempo_api import wire
from tempo_bench.accounting import CallRecord

_CONNECT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go."""

    url: str
    """Base URL, with its `/v1`."""
    model: str


class AnyCall(Protocol):
    """One request to send."""

    @property
    def path(self) -> str:
        """Below the base URL."""
        ...

    @property
    def delay_s(self) -> float:
        """Between the end of the stage before it and this call."""
        ...

    def fields(self, earlier: Sequence[str]) -> dict[str, Any]:
        """What it asks for, of a request's body; `earlier` are the answers of the stage before."""
        ...

    def complaint(self, prompt_tokens: int, output_tokens: int) -> str | None:
        """What is wrong with an answer of so many tokens, if anything is."""
        ...


class AnyUnit(Protocol):
    """A call, or a program of stages of calls."""

    @property
    def id(self) -> str:
        """Distinct within its workload."""
        ...

    @property
    def kind(self) -> str:
        """Its SLO class."""
        ...

    @property
    def at_s(self) -> float:
        """Arrival, seconds after the start of the run."""
        ...

    @property
    def streams(self) -> bool:
        """Whether its answers are streamed."""
        ...

    @property
    def program(self) -> bool:
        """Whether its calls say that they belong together."""
        ...

    @property
    def stages(self) -> Sequence[Sequence[AnyCall]]:
        """Calls of a stage run together."""
        ...


class _Part(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Part | None = None
    message: _Part | None = None
    text: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None

    @property
    def text(self) -> str:
        if not self.choices:
            return ""
        choice = self.choices[0]
        part = choice.delta or choice.message
        return (part.content if part else choice.text) or ""


_DECODER: Final = msgspec.json.Decoder(_Body)


class RequestError(Exception):
    """The endpoint refused or broke off; its text is what the report shows."""


def open_session() -> aiohttp.ClientSession:
    """A session without a connection limit: an open loop must never wait for a free connection."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
    )


class Caller:
    """Sends calls and keeps time, in seconds since `origin_s` of the loop's clock.

    Args:
        session: see `open_session`.
        target: the endpoint.
        origin_s: the run's start, loop time.
        until_s: when what is still in flight is given up, seconds since the start.

    """

    def __init__(self, session: aiohttp.ClientSession, target: Target, origin_s: float, until_s: float) -> None:
        self._session = session
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._origin_s = origin_s
        self._until_s = until_s

    def now_s(self) -> float:
        """Seconds since the start of the run."""
        return self._loop.time() - self._origin_s

    async def call(self, unit: AnyUnit, stage: int, call: AnyCall, earlier: Sequence[str]) -> CallRecord:
        """Send one call of `unit` and follow it to its end; every failure becomes `CallRecord.error`."""
        answer = _Answer(self.now_s())
        stream = unit.streams
        try:
            async with (
                asyncio.timeout_at(self._origin_s + self._until_s),
                self._session.post(
                    f"{self._target.url}/{call.path}",
                    data=orjson.dumps(_body(self._target.model, call, earlier, stream=stream)),
                    headers=_headers(unit, stage),
                ) as response,
            ):
                await self._read(response, answer, stream=stream)
            answer.error = call.complaint(answer.prompt_tokens, answer.tokens)
        except TimeoutError:
            answer.error = "not answered within the time that the run allows"
        except (aiohttp.ClientError, OSError, ValueError, RequestError) as error:
            answer.error = f"{type(error).__name__}: {error}" if not isinstance(error, RequestError) else str(error)
        return answer.record(self.now_s())

    async def _read(self, response: aiohttp.ClientResponse, answer: "_Answer", *, stream: bool) -> None:
        if response.status != 200:
            raise RequestError(f"HTTP {response.status}: {(await response.text())[:200]}")
        if not stream:
            answer.add(_checked(await response.read()), self.now_s(), whole=True)
            return
        async for line in response.content:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            answer.add(_checked(data), self.now_s())
        raise RequestError("the stream ended without [DONE]")


class _Answer:
    """What has arrived of one answer."""

    def __init__(self, sent_s: float) -> None:
        self.sent_s = sent_s
        self.stamps: list[tuple[float, int]] = []
        self.tokens = 0
        self.prompt_tokens = self.cached_tokens = 0
        self.texts: list[str] = []
        self.error: str | None = None

    def add(self, body: _Body, now_s: float, *, whole: bool = False) -> None:
        text = body.text
        new = 1 if text else 0
        if body.usage is not None:
            self.prompt_tokens = body.usage.prompt_tokens
            details = body.usage.prompt_tokens_details
            self.cached_tokens = (details and details.cached_tokens) or self.cached_tokens
            new = body.usage.completion_tokens - self.tokens
        if new > 0:
            self.tokens += new
            self.stamps.append((now_s, new))
        if text:
            self.texts.append(text)
        if whole and body.usage is None:
            raise RequestError("the answer has no usage; tokens cannot be counted")

    def record(self, now_s: float) -> CallRecord:
        if self.error is None and not self.tokens:
            self.error = "the answer holds no token"
        stamps, text = tuple(self.stamps), "".join(self.texts)
        return CallRecord(self.sent_s, now_s, stamps, self.prompt_tokens, text, self.error, self.cached_tokens)


def _checked(data: bytes) -> _Body:
    body = _DECODER.decode(data)
    if body.error is not None:
        raise RequestError(f"error in the answer: {str(body.error)[:200]}")
    return body


def _headers(unit: AnyUnit, stage: int) -> dict[str, str]:
    headers = {"content-type": "application/json", wire.CLASS_HEADERS[0]: str(unit.kind)}
    if unit.program:
        headers[wire.PROGRAM_HEADER] = unit.id
        headers[wire.STAGE_HEADER] = str(stage)
        if stage == len(unit.stages) - 1:
            headers[wire.FINAL_HEADER] = "true"
    return headers


def _body(model: str, call: AnyCall, earlier: Sequence[str], *, stream: bool) -> dict[str, Any]:
    body = {"model": model, **call.fields(earlier), "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    return body
