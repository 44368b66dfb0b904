"""An instant OpenAI endpoint, so that what is in front of it is all that a measurement sees.

    python -m tempo_bench.stand_in PORT [GAP_S]

Answers are fixed bytes: a whole completion at once, or a stream of `CHUNKS` chunks, `GAP_S` apart.
"""

import asyncio
import sys
from typing import Final

import orjson
import uvloop
from aiohttp import web

CHUNKS: Final = 100
_USAGE: Final = {"prompt_tokens": 40, "completion_tokens": CHUNKS, "total_tokens": 40 + CHUNKS}
_HEAD: Final = {"id": "chatcmpl-0", "created": 0, "model": "stand-in"}


def _chunk(**fields: object) -> bytes:
    return b"data: " + orjson.dumps({**_HEAD, "object": "chat.completion.chunk", **fields}) + b"\n\n"


_TOKEN: Final = _chunk(choices=[{"index": 0, "delta": {"content": " word"}, "finish_reason": None}], usage=None)
_END: Final = _chunk(choices=[], usage=_USAGE) + b"data: [DONE]\n\n"
_WHOLE: Final = orjson.dumps(
    {
        **_HEAD,
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": " word" * CHUNKS}, "finish_reason": "stop"}
        ],
        "usage": _USAGE,
    }
)


def build_app(gap_s: float) -> web.Application:
    """The endpoint; whatever else is asked for gets a 200 that both a router and a sidecar take for readiness."""

    async def chat(request: web.Request) -> web.StreamResponse:
        if not orjson.loads(await request.read()).get("stream"):
            return web.Response(body=_WHOLE, content_type="application/json")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(CHUNKS):
            await response.write(_TOKEN)
            await asyncio.sleep(gap_s)
        await response.write(_END)
        return response

    async def other(_: web.Request) -> web.Response:
        return web.json_response({"ready": True})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/{path:.*}", other)
    return app


if __name__ == "__main__":
    gap = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    web.run_app(
        build_app(gap),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        print=None,
        access_log=None,
        loop=uvloop.new_event_loop(),
    )
