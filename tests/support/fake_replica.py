"""FakeReplica: a stand-in for a sidecar with its engine, which fails in every way that a test asks for."""

import asyncio
from contextlib import asynccontextmanager

from aiohttp import web

from support.fake_engine import chunk, event
from tempo_api.state import STATE_PATH, STATE_TYPE, EngineState, encode_state

PUSH_EVERY_S = 0.02


class FakeReplica:
    """Serves streams of `tokens` tokens, one every `pace_s`, and pushes its state; use it through `running()`.

    Attributes:
        dawdle_s: until it begins an answer.
        slow: by how much it is slower than it should be; inf: it stands still, and goes on pushing its state.
        refuse_with: a status for every completion.
        mute: its state is pushed no more.
        garbage: is pushed in place of its state.
        served: completions that arrived.
        headers: of each.

    """

    def __init__(self, tokens=5, pace_s=0.005, places=16):
        self.tokens, self.pace_s, self.places = tokens, pace_s, places
        self.dawdle_s, self.slow, self.refuse_with, self.mute, self.garbage = 0.0, 1.0, None, False, None
        self.served = self.in_flight = self.listened = 0
        self.headers = []
        self.url = ""
        self._going = asyncio.Event()
        self._going.set()
        self._runner = None
        self._port = 0

    @asynccontextmanager
    async def running(self):
        """Serve on a free port of 127.0.0.1, the same one after each `restart`."""
        await self.restart()
        try:
            yield self
        finally:
            await self.kill()

    async def restart(self):
        """Come up, as a new process does."""
        app = web.Application(middlewares=[self._hanging])
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get(STATE_PATH, self._push)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, backlog=1024, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.go_on()

    async def kill(self):
        """Be gone, as after SIGKILL: every connection is reset, and nobody listens."""
        self.go_on()
        if self._runner.server is None:
            return
        for connection in list(self._runner.server.connections):
            if connection.transport:
                connection.transport.abort()
        await self._runner.cleanup()

    def hang(self):
        """Accept connections, and say nothing more on any."""
        self._going.clear()

    def go_on(self):
        """Wake up from `hang`."""
        self._going.set()

    @web.middleware
    async def _hanging(self, request, handler):
        await self._going.wait()
        return await handler(request)

    async def _complete(self, request):
        self.served += 1
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        try:
            if self.refuse_with:
                return web.json_response({"error": {"message": "no"}}, status=self.refuse_with)
            return await self._stream(request)
        finally:
            self.in_flight -= 1

    async def _stream(self, request):
        await request.read()
        await asyncio.sleep(self.dawdle_s)
        await self._pause()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for index in range(self.tokens):
            await self._pause()
            await response.write(event(chunk(request.path, index, last=index == self.tokens - 1)))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _pause(self):
        pauses = 0
        while pauses < self.slow:
            await asyncio.sleep(self.pace_s)
            pauses += 1
        await self._going.wait()

    async def _readyz(self, _):
        return web.json_response({"ready": True})

    async def _push(self, request):
        self.listened += 1
        response = web.StreamResponse(headers={"Content-Type": STATE_TYPE})
        await response.prepare(request)
        while True:
            await self._going.wait()
            if self.garbage is not None:
                await response.write(self.garbage)
            elif not self.mute:
                state = EngineState(ready=True, in_flight=self.in_flight, running=self.in_flight, places=self.places)
                await response.write(encode_state(state))
            await asyncio.sleep(PUSH_EVERY_S)
