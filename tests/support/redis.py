"""A real Redis for tests, on a socket in a folder of its own; tests that want one are skipped where there is none."""

import asyncio
import shutil
from contextlib import asynccontextmanager

import pytest


def need_redis():
    """Skip the module's tests, saying why, where the server or its client is missing."""
    pytest.importorskip("redis", reason="needs the redis client")
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server (Debian: apt-get install redis-server)", allow_module_level=True)


class RedisServer:
    """Can be stopped and started again; it forgets everything then."""

    def __init__(self, folder):
        self._socket = folder / "redis.sock"
        self._process = None
        self.url = f"unix://{self._socket}"

    async def start(self):
        options = ("--port", "0", "--unixsocket", str(self._socket), "--save", "", "--appendonly", "no")
        self._process = await asyncio.create_subprocess_exec(
            "redis-server", *options, cwd=self._socket.parent, stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(10):
            while not await self._answers():  # noqa: ASYNC110  # another process's start
                await asyncio.sleep(0.02)

    async def stop(self):
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._socket.unlink(missing_ok=True)

    async def _answers(self):
        try:
            _, writer = await asyncio.open_unix_connection(self._socket)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


@asynccontextmanager
async def redis_server(folder):
    """A server whose socket lies in `folder`."""
    server = RedisServer(folder)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()
