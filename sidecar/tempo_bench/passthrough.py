"""The least that an aiohttp proxy can do, as the peer that router and sidecar are compared with.

python -m tempo_bench.passthrough PORT UPSTREAM_URL
"""

import sys
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import uvloop
from aiohttp import web

_SESSION: Final = web.AppKey("session", aiohttp.ClientSession)


def build_app(upstream: str) -> web.Application:
    """A proxy that copies the body to `upstream` and the answer back, chunk by chunk, and looks at neither."""

    async def forward(request: web.Request) -> web.StreamResponse:
        async with request.app[_SESSION].request(
            request.method,
            upstream + request.path_qs,
            data=await request.read(),
            headers={"content-type": request.content_type},
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers={"content-type": answer.content_type})
            if answer.content_length is not None:
                response.content_length = answer.content_length
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
            return response

    async def session(app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as opened:
            app[_SESSION] = opened
            yield

    app = web.Application()
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", forward)
    return app


if __name__ == "__main__":
    web.run_app(
        build_app(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        print=None,
        access_log=None,
        loop=uvloop.new_event_loop(),
    )
