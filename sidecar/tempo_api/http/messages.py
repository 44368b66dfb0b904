"""Heads of HTTP/1.1 messages as bytes: what a proxy passes on of them, and what it makes anew."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from multidict import CIMultiDict, MultiMapping

Fields = list[tuple[bytes, bytes]]
"""An answer's header fields in order; names in lower case."""

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_HOP_BY_HOP_FIELDS: Final = frozenset(name.encode() for name in _HOP_BY_HOP)
# Made anew for the upstream; without accept-encoding its answer is plain, so that it can be metered.
# aiohttp has undone the body's own encoding.
_NOT_SENT_ON: Final = _HOP_BY_HOP | {"host", "content-length", "content-encoding", "expect", "accept-encoding"}
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})
"""Methods of which nobody expects a body unless it is announced."""

_BODYLESS: Final = frozenset({204, 304})
_NOTHING: Final[frozenset[bytes]] = frozenset()
_NO_LENGTH: Final = frozenset({b"content-length"})


class Origin(NamedTuple):
    """Where a base URL leads."""

    host: str
    port: int
    authority: str
    """For the Host header."""
    prefix: str
    """Comes before every path."""


@lru_cache(maxsize=1024)
def origin_of(base_url: str) -> Origin:
    """The parts of a base URL such as `http://127.0.0.1:8000`.

    Raises:
        ValueError: if it is not a plain http URL.

    """
    url = urlsplit(base_url)
    if url.scheme != "http" or not url.hostname:
        raise ValueError(f"{base_url!r} is not of the form http://HOST:PORT")
    return Origin(url.hostname, url.port or 80, url.netloc.rpartition("@")[2], url.path.rstrip("/"))


def forwarded_headers(headers: MultiMapping[str], drop: Collection[str] = ()) -> CIMultiDict[str]:
    """A request's headers as they go on: none of one connection's or that `request_head` makes, none of `drop`.

    The names in `drop` are in lower case.
    """
    gone = _NOT_SENT_ON.union(drop)
    if "connection" in headers:
        listed = ",".join(headers.getall("connection")).split(",")
        gone = gone.union([name.strip().lower() for name in listed])
    return CIMultiDict([pair for pair in headers.items() if pair[0].lower() not in gone])


def request_head(method: str, target: str, authority: str, headers: Mapping[str, str], length: int) -> bytes:
    """A request's line and headers.

    Args:
        method: such as `POST`.
        target: path and query, encoded.
        authority: for the Host header.
        headers: as `forwarded_headers` gives them, or others that say nothing of host, length and encoding.
        length: of the body, in bytes.

    Raises:
        ValueError: if there is a line break in one of them.

    """
    lines = [f"{method} {target} HTTP/1.1", f"Host: {authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if length or method not in _WITHOUT_BODY:
        lines.append(f"Content-Length: {length}")
    text = "\r\n".join(lines)
    if not text.count("\r") == text.count("\n") == len(lines) - 1:
        raise ValueError("a header must not have a line break in it")
    return f"{text}\r\n\r\n".encode("utf-8", "surrogateescape")  # as aiohttp decoded it


class Framing(NamedTuple):
    """How a client is told where an answer ends."""

    chunked: bool
    keep_alive: bool
    """False: by closing the connection, or because the client wants that."""
    drop: frozenset[bytes]
    """Fields of the upstream's that do not hold here."""
    add: str
    """Header lines, each with its end."""


def frame(
    method: str, status: int, named: Mapping[bytes, bytes], version: tuple[int, int], *, streams: bool, kept: bool
) -> Framing:
    """Decide how an answer to a client is framed.

    Args:
        method: of the request.
        status: of the answer.
        named: fields of the answer, as `by_name` gives them.
        version: of HTTP that the client speaks; before 1.1 there are no chunks.
        streams: its length is not to be told, even if it is known.
        kept: the client wants to keep its connection.

    """
    bodyless = method == "HEAD" or status in _BODYLESS
    measured = bodyless or (b"content-length" in named and not streams)
    modern = version >= (1, 1)
    kept = kept and (measured or modern)
    add = "" if measured or not modern else "transfer-encoding: chunked\r\n"
    if not (kept and modern):
        add += f"connection: {'keep-alive' if kept else 'close'}\r\n"
    drop = _NO_LENGTH if status == 204 or not measured else _NOTHING
    if listed := named.get(b"connection"):
        drop |= {name.strip().lower() for name in listed.split(b",")}
    return Framing(modern and not measured, kept, drop, add)


def answer_head(status: int, reason: bytes, fields: Fields, framing: Framing, extra: Mapping[str, str]) -> bytes:
    """An answer's line and headers.

    Args:
        status: of the answer.
        reason: its phrase; may be empty.
        fields: the upstream's; what belongs to its connection is left out.
        framing: what to leave out and add besides.
        extra: takes the place of the upstream's fields of the same name.

    """
    gone = _left_out(framing.drop, tuple(extra))
    kept = b"".join([b"%b: %b\r\n" % pair for pair in fields if pair[0] not in gone])
    ours = "".join([f"{name}: {value}\r\n" for name, value in extra.items()])
    return b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (status, reason, kept, (ours + framing.add).encode())


@lru_cache(maxsize=64)
def _left_out(drop: frozenset[bytes], ours: tuple[str, ...]) -> frozenset[bytes]:
    """Fields of an upstream's that go no further: its connection's, `drop`, and those that we set ourselves."""
    return _HOP_BY_HOP_FIELDS | drop | {name.lower().encode() for name in ours}


def chunk(data: bytes, last: bool) -> bytes:
    """`data` in chunked coding, if there is any, and the end if it is the last."""
    coded = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return coded + b"0\r\n\r\n" if last else coded


def by_name(fields: Fields) -> dict[bytes, bytes]:
    """The value of each field, or all of its values in a row."""
    named = dict(fields)
    if len(named) == len(fields):
        return named
    return {name: b",".join([value for key, value in fields if key == name]) for name in named}
