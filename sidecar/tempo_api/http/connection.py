"""One kept-alive connection to an upstream: a request out, its answer in, each piece handed on as it arrives."""

import asyncio
from collections.abc import Callable
from typing import Final

import httptools

from tempo_api.http.messages import Fields, by_name
from tempo_api.openai import APIError, Ending

MAX_HEAD_BYTES: Final = 64 << 10
"""Of an answer's head, of its trailers, and of what else an upstream may send between two pieces of a body."""

_WORTH_COPYING: Final = 16 << 10
"""A body shorter than this is cheaper to copy than to write beside its head."""

Take = Callable[[bytes, bool], bool]
"""Given the next piece of a body and whether it is the last; returns whether more is wanted at once."""


class UpstreamError(APIError):
    """The upstream failed before the client got a byte, so the request may be tried elsewhere.

    `status` is the upstream's own, if it answered with one that the caller of `relay` refuses.
    """

    def __init__(self, ending: Ending, message: str, status: int | None = None) -> None:
        super().__init__(ending, message)
        self.status = status


class StaleError(UpstreamError):
    """A connection that had been kept open was closed before it brought a byte: it was closing as the request left."""


class Connection(asyncio.Protocol):
    """An exchange at a time: `send`, `body_begun`, `pour` until it returns True, and `end`, whatever happened.

    What arrives together is handed on together, synchronously, so that a piece of a stream costs no task switch.
    """

    def __init__(self) -> None:
        self.status = 0
        self.reason = b""
        self.fields: Fields = []
        self.named: dict[bytes, bytes] = {}
        """The same by name."""
        self.heard_s = 0.0
        """When something was last sent or came, by the loop's clock."""
        self.paused = False
        """Nothing is read, because the taker has enough."""
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._reused = False
        self._waiter: asyncio.Future[None] | None = None
        self._reset(headless=False)
        self._busy = False

    def _reset(self, *, headless: bool) -> None:
        self._busy = True
        self._headless = headless
        self._heard = self._begun = self._whole = self._reusable = self._until_close = False
        self._failure: UpstreamError | None = None
        self._take: Take | None = None
        self._pieces: list[bytes] = []
        self._loose_bytes = 0

    async def send(self, head: bytes, body: bytes, *, headless: bool = False) -> None:
        """Send a request and wait for the head of its answer: `status`, `reason`, `fields`.

        Args:
            head: its line and headers.
            body: written at once; what the upstream does not take yet is buffered.
            headless: the answer has no body, whatever its head says, for the method is HEAD.

        Raises:
            UpstreamError: `UPSTREAM_FAILED`, as `StaleError` where that is meant, or `UPSTREAM_TIMEOUT`.

        """
        self._reset(headless=headless)
        self.heard_s = self._loop.time()
        if not self.open:  # between being made and being used
            raise self._lost()
        if len(body) < _WORTH_COPYING:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        while not self._begun:
            await self._news()

    async def body_begun(self) -> None:
        """Wait for the first byte of the body, or for the end of an empty one.

        Raises:
            UpstreamError: as `send` does.

        """
        while not (self._pieces or self._whole):
            await self._news()

    async def pour(self, take: Take) -> bool:
        """Give `take` what is there and what comes; returns True at the end, False once `take` has enough for now.

        Raises:
            UpstreamError: as `send` does, after all that came has been handed on.

        """
        self._take = take
        if self.paused:
            self.paused, self.heard_s = False, self._loop.time()
            self._transport.resume_reading()
        self._hand_on()
        while self._take is not None:
            await self._news()
        return self._whole

    def end(self) -> bool:
        """The exchange is over; returns whether the connection can serve another, and closes it if it can't."""
        self._busy, self._take, self._reused = False, None, True
        if self._whole and self._reusable and self.open and not self._transport.get_write_buffer_size():
            return True  # and not where an answer came before all of its request was taken
        self.close()
        return False

    def close(self) -> None:
        """Close it at once."""
        self._transport.abort()

    @property
    def open(self) -> bool:
        """Neither side has closed it."""
        return not self._transport.is_closing()

    def fail(self, ending: Ending, message: str) -> None:
        """Break the exchange off and close the connection."""
        self._failure = self._failure or UpstreamError(ending, message)
        self._transport.abort()
        self._wake()

    def _lost(self) -> UpstreamError:
        kind = StaleError if self._reused and not self._heard else UpstreamError
        return kind(Ending.UPSTREAM_FAILED, "The upstream closed the connection before its answer was complete.")

    async def _news(self) -> None:
        """Wait until something came."""
        if self._failure:
            raise self._failure
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def _too_long(self) -> bool:
        """Whether the head is, of which all that came is at least as long."""
        return self._loose_bytes > MAX_HEAD_BYTES < sum([len(name) + len(value) for name, value in self.fields])

    def _hand_on(self) -> None:
        if self._take is None:
            self._wake()
        elif self._pieces or self._whole:
            pieces, self._pieces = self._pieces, []
            more = self._take(pieces[0] if len(pieces) == 1 else b"".join(pieces), self._whole)
            if more and not self._whole:
                return
            self._take = None
            if not self._whole:
                self.paused = True
                self._transport.pause_reading()
            self._wake()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]  # of a TCP connection, so it is a Transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if not self._busy:  # nobody asked: a 408 before a close, or more than the answer was to have
            self._transport.abort()
            return
        self.heard_s, self._heard = self._loop.time(), True
        self._loose_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._reusable = False
            self._loose_bytes = 0 if self._whole else MAX_HEAD_BYTES + 1
        self._hand_on()
        if self._loose_bytes > MAX_HEAD_BYTES:
            self.fail(Ending.UPSTREAM_FAILED, "The upstream's answer is not valid HTTP/1.1, or its head is too long.")

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._whole or not self._busy:
            return
        if self._until_close and exc is None and not self._failure:
            self._whole = True
            self._hand_on()
            return
        self._failure = self._failure or self._lost()
        self._wake()

    # What the parser calls. If one raises, `feed_data` raises HttpParserError.

    def on_message_begin(self) -> None:
        """An answer begins, or an interim one."""
        if self._whole:
            raise ValueError("more than the one answer that was asked for")
        self.reason, self.fields = b"", []

    def on_status(self, piece: bytes) -> None:
        """The reason phrase, or a part of it."""
        self.reason += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field; of trailers nobody has use."""
        if not self._begun:
            self.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is there."""
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return  # the answer itself follows
        self.named = by_name(self.fields)
        coding = self.named.get(b"transfer-encoding", b"")
        if self._too_long() or coding.lower() not in {b"", b"chunked"}:
            raise ValueError("a head that can't be passed on")
        self._begun, self._loose_bytes = True, 0
        self._until_close = not coding and b"content-length" not in self.named
        self._whole = self._headless

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        self._loose_bytes = 0
        if not self._headless:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """The answer ends."""
        if self._begun:
            self._whole, self._reusable = True, self._parser.should_keep_alive()
