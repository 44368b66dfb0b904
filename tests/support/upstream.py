"""FakeUpstream: a TCP server that says exactly what a test tells it to, byte by byte if need be."""

import asyncio
from contextlib import asynccontextmanager


class FakeUpstream:
    """Serves each connection by a script, the last one for all that follow; use it through `running()`.

    A script is a coroutine function of this and the connection's reader and writer; when it returns the connection
    is closed.
    """

    def __init__(self, *scripts):
        self.scripts = scripts
        self.requests = []
        """Head and body of each, as bytes."""
        self.connections = 0
        self.hung_up = asyncio.Event()
        """The other side closed a connection."""
        self.url = ""

    @asynccontextmanager
    async def running(self):
        """Serve on a free port of 127.0.0.1; `url` is set."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._tasks = set()
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def request(self, reader):
        """Read a request; its head and body."""
        head = await reader.readuntil(b"\r\n\r\n")
        _, found, rest = head.lower().partition(b"content-length: ")
        body = await reader.readexactly(int(rest.split(b"\r\n")[0])) if found else b""
        self.requests.append((head, body))
        return head, body

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        try:
            await script(self, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up.set()
        finally:
            writer.close()


def says(*answers, gap_s=0.0, close=False):
    """A script: to each request the next answer (bytes, or pieces of them), then silence, or the end."""

    async def script(upstream, reader, writer):
        for answer in answers:
            await upstream.request(reader)
            for piece in [answer] if isinstance(answer, bytes) else answer:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(gap_s)
        if not close:
            await reader.readexactly(1)

    return script
