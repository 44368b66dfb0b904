"""FakeEngine: a stand-in for vLLM's OpenAI server, whose pace and accidents a test decides."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

MODEL = "fake-model"


@dataclass
class FakeEngine:
    """An engine in this process; use it through `running()`.

    It answers every prompt with `tokens` words, one event each, and speaks vLLM's dialect: the usage event only if
    asked for, `max_tokens` as the cap, 404 for another model.
    """

    tokens: int = 5
    pace_s: float = 0.0
    """Before each token."""
    prompt_tokens: int = 7
    """Of a prompt that is text; token ids are counted."""
    obeys: bool = True
    """Whether answers are as long as `forced_output_tokens` asks for."""
    die_after: int | None = None
    """Cut the connection after this many tokens; 0: before the answer's head."""
    hold: asyncio.Event | None = None
    """If set, wait for it after the first token."""
    refuse_with: int | None = None
    """Answer this status instead."""
    healthy: bool = True
    bodies: list[dict] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    """The same as they came."""
    headers: list[dict[str, str]] = field(default_factory=list)
    disconnects: int = 0
    """Answers that ended because the other side hung up."""
    url: str = ""

    @asynccontextmanager
    async def running(self):
        """Serve on a free port of 127.0.0.1; `url` is set."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", self._completion)
        app.router.add_post("/v1/completions", self._completion)
        app.router.add_post("/v1/responses", self._completion)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_route("*", "/echo", self._echo)
        app.router.add_route("*", "/v1/echo", self._echo)
        app.router.add_route("POST", "/{path:(v1/rerank|tokenize)}", self._echo)
        app.router.add_post("/v1/embeddings", self._embed)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _completion(self, request):
        self.raw.append(await request.read())
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if self.refuse_with or body.get("model") not in {None, MODEL}:
            status = self.refuse_with or 404
            return web.json_response({"error": {"message": "no", "type": "Fake", "code": status}}, status=status)
        try:
            return await (self._stream(request, body) if body.get("stream") else self._whole(request, body))
        except (asyncio.CancelledError, ConnectionError):
            self.disconnects += 1
            raise

    async def _stream(self, request, body):
        if self.die_after == 0:
            return self._die(request, None)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        count = self._count(body)
        if "responses" in request.path:
            return await self._stream_response(request, response, body, count)
        for index in range(count):
            await asyncio.sleep(self.pace_s)
            await response.write(event(chunk(request.path, index, last=index == count - 1)))
            if index + 1 == self.die_after:
                return self._die(request, response)
            if self.hold and not index:
                await self.hold.wait()
        if (body.get("stream_options") or {}).get("include_usage"):
            await response.write(event({**chunk(request.path, 0), "choices": [], "usage": self._usage(body, count)}))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _stream_response(self, request, response, body, count):
        await response.write(named_event(0, "response.created", response=self._response(body, None)))
        for index in range(count):
            await asyncio.sleep(self.pace_s)
            delta = {"item_id": "m", "output_index": 0, "content_index": 0, "delta": word(index), "logprobs": []}
            await response.write(named_event(index + 1, "response.output_text.delta", **delta))
            if index + 1 == self.die_after:
                return self._die(request, response)
        await response.write(named_event(count + 1, "response.completed", response=self._response(body, count)))
        return response

    async def _whole(self, request, body):
        if self.die_after is not None:
            return self._die(request, None)
        count = self._count(body)
        await asyncio.sleep(self.pace_s * count)
        if self.hold:
            await self.hold.wait()
        if "responses" in request.path:
            return web.json_response(self._response(body, count))
        text = "".join(word(index) for index in range(count))
        reason = "length" if count < self.tokens else "stop"
        shape = {"message": {"role": "assistant", "content": text}} if "chat" in request.path else {"text": text}
        choices = [{"index": 0, "finish_reason": reason, **shape}]
        return web.json_response({"id": "fake", "model": MODEL, "choices": choices, "usage": self._usage(body, count)})

    def _count(self, body):
        tokens = self.tokens
        if self.obeys:
            tokens = (body.get("vllm_xargs") or {}).get("forced_output_tokens", tokens)
        caps = ("max_completion_tokens", "max_output_tokens", "max_tokens")
        return min([tokens, *(body[cap] for cap in caps if body.get(cap))])

    def _usage(self, body, count):
        prompt = body.get("prompt")
        tokens = len(prompt) if isinstance(prompt, list) else self.prompt_tokens
        return {"prompt_tokens": tokens, "completion_tokens": count, "total_tokens": tokens + count}

    def _response(self, body, count):
        """A response, complete if `count` is given."""
        text = "".join(word(index) for index in range(count or 0))
        part = {"type": "output_text", "text": text, "annotations": []}
        message = {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        usage = {
            "input_tokens": self.prompt_tokens, "output_tokens": count,
            "total_tokens": self.prompt_tokens + (count or 0),
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
        }  # fmt: skip
        end = {"status": "in_progress", "output": [], "usage": None}
        if count is not None:
            end = {"status": "incomplete" if count < self.tokens else "completed", "output": [message], "usage": usage}
        fixed = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        return {"id": "r", "object": "response", "created_at": 1, "model": body.get("model"), **fixed, **end}

    @staticmethod
    def _die(request, response):
        request.transport.abort()
        return response or web.Response()

    async def _embed(self, request):
        self.headers.append(dict(request.headers))
        self.bodies.append(await request.json())
        vector = {"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}
        usage = {"prompt_tokens": self.prompt_tokens, "total_tokens": self.prompt_tokens}
        return web.json_response({"object": "list", "model": MODEL, "data": [vector], "usage": usage})

    async def _models(self, _):
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def _health(self, _):
        return web.Response(status=200 if self.healthy else 500)

    async def _readyz(self, _):
        """What a sidecar says, so that a router may stand right before this engine."""
        return web.json_response({"ready": self.healthy}, status=200 if self.healthy else 503)

    async def _metrics(self, _):
        return web.Response(text="vllm:num_requests_running 0\n")

    async def _echo(self, request):
        self.headers.append(dict(request.headers))
        body = await request.read()
        if self.refuse_with:
            return web.json_response({"error": {"message": "no"}}, status=self.refuse_with)
        return web.Response(body=body, headers={"x-method": request.method, "x-path": str(request.rel_url)})


def word(index):
    """The text of a token."""
    return f" w{index}"


def chunk(path, index, *, last=False):
    """A stream's event as an object."""
    text = {"delta": {"content": word(index)}} if "chat" in path else {"text": word(index)}
    choice = {"index": 0, "finish_reason": "stop" if last else None, **text}
    kind = "chat.completion.chunk" if "chat" in path else "text_completion"
    return {"id": "fake", "object": kind, "created": 1, "model": MODEL, "choices": [choice]}


def event(data):
    """An object as a server-sent event."""
    return f"data: {json.dumps(data)}\n\n".encode()


def named_event(number, kind, **fields):
    """An event of the Responses API."""
    return f"event: {kind}\n".encode() + event({"type": kind, "sequence_number": number, **fields})
