"""An OpenAI server before the simulated engine, to try Tempo without a GPU; its answers say that they mean nothing."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge

from tempo_api.engine_status import status_file, write_status
from tempo_api.http.server import make_app
from tempo_api.openai import APIError, Ending, parse_body
from tempo_api.reload import Reloader
from tempo_sim.live import LiveEngine
from tempo_sim.profiles import EngineProfile
from tempo_sim.serve_answers import ANSWERS, Answer, check_model, text_of, token_ids, xargs_of

log = logging.getLogger(__name__)

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
        for path in ANSWERS:
            app.router.add_post(path, self._complete)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/detokenize", self._detokenize)
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
        body = parse_body(await request.read())
        answer = ANSWERS[request.path](body, self._reloader.pool.served_model_name, self._profile)
        priority = body.get("priority")
        generated = self._engine.generate(
            xargs_of(body),
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

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = parse_body(await request.read())
        check_model(body, self._reloader.pool.served_model_name)
        content = body.get("messages") or body.get("prompt")
        if not content:
            raise APIError(Ending.INVALID_VALUE, "`prompt` or `messages` is required.", param="prompt")
        ids = token_ids(content)
        return web.json_response({"count": len(ids), "max_model_len": self._profile.kv_tokens, "tokens": ids})

    async def _detokenize(self, request: web.Request) -> web.Response:
        body = parse_body(await request.read())
        check_model(body, self._reloader.pool.served_model_name)
        ids = body.get("tokens")
        if not isinstance(ids, list) or not all(isinstance(token, int) and token >= 0 for token in ids):
            raise APIError(Ending.INVALID_VALUE, "`tokens` must be a list of ids.", param="tokens")
        return web.json_response({"prompt": text_of(ids)})

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


async def _stream(request: web.Request, answer: Answer, tokens: AsyncIterator[int]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    await response.write(b"".join(answer.begin()))
    sent = 0
    async for count in tokens:
        for index in range(sent, sent + count):
            await response.write(answer.token(index))
        sent += count
    await response.write(b"".join(answer.end()))
    await response.write_eof()
    return response
