"""As much of HTTP/1.1 as a benchmark's two ends need."""

from typing import Final

HEAD_END: Final = b"\r\n\r\n"
CHUNKED_END: Final = b"0\r\n\r\n"
"""The last chunk of a body that comes in chunks."""


def content_length(head: bytes) -> int | None:
    """The body's length in bytes by a message's head; None where it does not say."""
    _, name, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.split(b"\r\n", 1)[0]) if name else None


def http_chunk(data: bytes) -> bytes:
    """`data` as one chunk of a body that comes in chunks."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def problem(status: int, body: bytes | bytearray, text: bytes, chunks: int) -> str | None:
    """What is wrong with an answer, or None.

    Args:
        status: its HTTP status.
        body: all that came after its head.
        text: what each of its tokens says.
        chunks: how many it has at least, if it is a stream; 0: it is whole.

    """
    if status != 200:
        return f"status {status}"
    if text not in body:
        return "no text"
    if chunks and (body.count(b"data:") <= chunks or b"data: [DONE]" not in body):
        return "cut short"
    return None
