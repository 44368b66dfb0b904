"""Looks at a file again and again while the router runs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from aiohttp import web

POLL_S: Final = 1.0

Context = Callable[[web.Application], AsyncIterator[None]]
"""For `web.Application.cleanup_ctx`."""


def follow(poll: Callable[[], object], *, in_thread: bool = False) -> Context:
    """Call `poll`, which never raises, every second; `in_thread` if it takes longer than requests should wait."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(POLL_S)
            if in_thread:
                await asyncio.to_thread(poll)
            else:
                poll()

    async def context(_: web.Application) -> AsyncIterator[None]:
        watching = asyncio.ensure_future(watch())
        yield
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    return context
