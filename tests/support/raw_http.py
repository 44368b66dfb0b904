"""HTTP as no well-behaved client writes it."""

import asyncio

from yarl import URL

_LONG_S = 0.1


async def exchange(url, data, *, hang_up=False):
    """Send these bytes to the server of `url`, and return all that comes back until the connection ends.

    With `hang_up` the server is told, once it has answered or been silent for long, that no more will come. Fails if
    it leaves the connection open all the same.
    """
    at = URL(url)
    async with asyncio.timeout(10.0):
        reader, writer = await asyncio.open_connection(at.host, at.port)
        try:
            writer.write(data)
            first = b""
            if hang_up:
                first = await _first(reader)
                writer.write_eof()
            return first + await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


async def _first(reader):
    try:
        return await asyncio.wait_for(reader.read(65536), _LONG_S)
    except TimeoutError:
        return b""


def request(method, path, *lines, body=b""):
    """A request's bytes; `lines` are more header lines."""
    fixed = [b"Host: tempo.test", b"Connection: close", b"Content-Length: %d" % len(body)]
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method, path), *fixed, *lines, b"", body])


def parse(answer):
    """Status and body of an answer; 0 for what is none."""
    start, _, body = answer.partition(b"\r\n\r\n")
    words = start.split(b" ", 2)
    return (int(words[1]), body) if len(words) > 1 and words[1].isdigit() else (0, b"")
