"""An OpenAI server before the simulated engine, to try Tempo without a GPU; its answers say that they mean nothing."""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from math import exp
from pathlib import Path
from random import Random
from typing import Any, Final

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge

from tempo_api.engine_status import status_file, write_status
from tempo_api.http.server import make_app
from tempo_api.openai import APIError, Ending, output_cap, parse_body
from tempo_api.reload import Reloader
from tempo_sim.live import LiveEngine
from tempo_sim.profiles import EngineProfile

log = logging.getLogger(__name__)

WORDS: Final = ("Simulated", " answer:", " no", " model", " runs", " here,", " only", " its", " pace.")
"""Each stands for a token; they come round again until the answer is as long as it is to be."""
XARG_TOKENS: Final = "forced_output_tokens"
"""The argument by which a load generator says how long the answer is to be, as with the real engine."""
_CHARACTERS_A_TOKEN: Final = 4
_MEDIAN_TOKENS, _SPREAD = 150.0, 0.8
_COMPLETIONS_CAP: Final = 16
_MAX_IN_FLIGHT: Final = 4096
_HOUSEKEEPING_S: Final = 1.0
_LOOK_EVERY_S: Final = 0.1


class Server:
    """One simulated engine behind HTTP.

    Args:
        reloader: the pool's manifest.
        profile: the engine's.

    """

    def __init__(self, reloader: Reloader, profile: EngineProfile) -> None:
        self._reloader = reloader
        self._profile = profile
        self._engine: LiveEngine

    def app(self) -> web.Application:
        """The server."""
        registry = CollectorRegistry()
        app = make_app(
            ready=self._ready,
            registry=registry,
            on_error=lambda *_: None,
            max_body_bytes=64 << 20,
            max_in_flight=_MAX_IN_FLIGHT,
        )
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.cleanup_ctx.append(self._running)
        for name, text, read in (
            ("running", "Requests in the batch", lambda: len(self._engine.replica.running)),
            ("waiting", "Requests waiting", lambda: len(self._engine.replica.waiting)),
        ):
            gauge = Gauge(f"vllm:num_requests_{name}", f"{text}, under the real engine's name", registry=registry)
            gauge.set_function(read)
        return app

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body, chat = parse_body(await request.read()), request.path == "/v1/chat/completions"
        answer = _Answer(body, self._reloader.pool.served_model_name, self._profile, chat=chat)
        priority = body.get("priority")
        generated = self._engine.generate(
            _xargs(body),
            prompt_tokens=answer.prompt_tokens,
            output_tokens=answer.tokens,
            max_tokens=answer.cap,
            priority=priority if isinstance(priority, int) else 0,
        )
        async with aclosing(generated) as tokens:  # at once when the client hangs up, so that its place is free
            if body.get("stream"):
                return await _stream(request, answer, tokens)
            async for _ in tokens:
                pass
        return web.Response(body=orjson.dumps(answer.whole()), content_type="application/json")

    async def _models(self, _: web.Request) -> web.Response:
        model = {"id": self._reloader.pool.served_model_name, "object": "model", "owned_by": "tempo sim-engine"}
        return web.json_response({"object": "list", "data": [model]})

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _ready(self) -> dict[str, Any]:
        return {"ready": True, **self._engine.status()}

    async def _running(self, _: web.Application) -> AsyncIterator[None]:
        self._engine = LiveEngine(self._profile, lambda: self._reloader.pool)
        tasks = [asyncio.create_task(self._engine.run()), asyncio.create_task(self._keep_house())]
        if path := status_file():
            tasks.append(asyncio.create_task(self._tell(path)))
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_house(self) -> None:
        while True:
            self._reloader.poll()
            await asyncio.sleep(_HOUSEKEEPING_S)

    async def _tell(self, path: Path) -> None:
        """Keep the status file as fresh as the plug-in in a real engine does."""
        told: Mapping[str, Any] = {}
        due_s = 0.0
        while True:
            status, now_s = self._engine.status(), time.monotonic()
            if status != told or now_s >= due_s:
                told, due_s = status, now_s + _HOUSEKEEPING_S
                try:
                    write_status(path, status)
                except OSError as error:
                    log.error("can't write the status: %s", error)
                    return
            await asyncio.sleep(_LOOK_EVERY_S)


class _Answer:
    """How long an answer is, and what it looks like."""

    def __init__(self, body: Mapping[str, Any], model: str, profile: EngineProfile, *, chat: bool) -> None:
        if (body.get("n") or 1) != 1:
            raise APIError(Ending.INVALID_VALUE, "The simulated engine gives one choice.", param="n")
        asked_for = body.get("model")
        if asked_for not in {None, model}:
            raise APIError(Ending.MODEL_NOT_FOUND, f"The model `{asked_for}` does not exist; it is `{model}`.")
        name = "messages" if chat else "prompt"
        content = body.get(name)
        if not content:
            raise APIError(Ending.INVALID_VALUE, f"`{name}` is required.", param=name)
        self.prompt_tokens = _tokens(content)
        room = profile.kv_tokens - self.prompt_tokens
        if room < 1:
            raise APIError(Ending.INVALID_VALUE, f"The prompt is longer than {profile.kv_tokens} tokens.")
        cap = output_cap(body)
        self.cap = max(1, min(room, (room if chat else _COMPLETIONS_CAP) if cap is None else cap))
        self.tokens = min(self.cap, _length(body, content))
        self._chat, self._model = chat, model
        self._id = f"{'chatcmpl' if chat else 'cmpl'}-sim-{time.time_ns():x}"
        self._created = int(time.time())
        self.asks_usage = bool((body.get("stream_options") or {}).get("include_usage"))

    @property
    def usage(self) -> dict[str, int]:
        """Token counts."""
        total = self.prompt_tokens + self.tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.tokens, "total_tokens": total}

    def whole(self) -> dict[str, Any]:
        """Without streaming."""
        text = "".join(_word(index) for index in range(self.tokens))
        part = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._head(kind), "choices": [self._choice(part, last=True)], "usage": self.usage}

    def chunk(self, index: int) -> dict[str, Any]:
        """The event of one token."""
        text = _word(index)
        part: dict[str, Any] = {"delta": {"content": text}} if self._chat else {"text": text}
        if self._chat and index == 0:
            part["delta"]["role"] = "assistant"
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return {**self._head(kind), "choices": [self._choice(part, last=index == self.tokens - 1)]}

    def usage_chunk(self) -> dict[str, Any]:
        """The event after the last token."""
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return {**self._head(kind), "choices": [], "usage": self.usage}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _choice(self, part: dict[str, Any], *, last: bool) -> dict[str, Any]:
        ended = "length" if self.tokens == self.cap else "stop"
        return {"index": 0, **part, "finish_reason": ended if last else None}


async def _stream(request: web.Request, answer: _Answer, tokens: AsyncIterator[int]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    sent = 0
    async for count in tokens:
        for index in range(sent, sent + count):
            await response.write(_event(answer.chunk(index)))
        sent += count
    if answer.asks_usage:
        await response.write(_event(answer.usage_chunk()))
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"


def _word(index: int) -> str:
    word = WORDS[index % len(WORDS)]
    return f" {word}" if index and index % len(WORDS) == 0 else word


def _tokens(content: object) -> int:
    """About how many tokens a prompt has: ids are counted, of text every four characters are one."""
    if isinstance(content, list) and content and isinstance(content[0], int):
        return len(content)
    return len(orjson.dumps(content)) // _CHARACTERS_A_TOKEN + 1


def _xargs(body: Mapping[str, Any]) -> Mapping[str, Any]:
    xargs = body.get("vllm_xargs")
    return xargs if isinstance(xargs, Mapping) else {}


def _length(body: Mapping[str, Any], content: object) -> int:
    """How long the answer would be: as the caller forces it, or drawn by its prompt, the same for the same one."""
    forced = _xargs(body).get(XARG_TOKENS)
    if isinstance(forced, int) and forced > 0:
        return forced
    if body.get("ignore_eos"):
        return 1 << 31
    seed = hashlib.sha256(orjson.dumps([content, body.get("seed")])).digest()
    return max(1, round(_MEDIAN_TOKENS * exp(Random(seed).gauss(0.0, _SPREAD))))  # noqa: S311  # draws, hides nothing
