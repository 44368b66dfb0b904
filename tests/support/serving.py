"""Serve an aiohttp app in this process, as `run_server` would."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from tempo_api.http.runner import Runner

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.yaml"


@asynccontextmanager
async def serving(app):
    """The app's base URL, on a free port of 127.0.0.1."""
    runner = Runner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def eventually(condition, timeout_s=5.0):
    """Wait until `condition()` is true; fail if it never is."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # whatever the condition, no event tells of it
            await asyncio.sleep(0.005)
