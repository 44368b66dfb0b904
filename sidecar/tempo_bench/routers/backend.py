"""The instant engine that every router is put in front of: fixed bytes and no HTTP library.

    python -m tempo_bench.routers.backend PORT MODEL

A prompt that holds the tag of `stream_tag` gets a stream of that many chunks with that gap between them; any other gets
a whole answer at once. (The tag is in the prompt because that is the one thing that every router passes on untouched.)
What routers ask engines besides is answered as vLLM, or as Tempo's sidecar, does.
"""

import asyncio
import sys
from typing import Final, cast

import orjson
import uvloop

from tempo_api.state import HEARTBEAT_S, STATE_PATH, STATE_TYPE, EngineState, encode_state
from tempo_bench.routers.wire import CHUNKED_END, HEAD_END, content_length, http_chunk

TEXT: Final = b" word"
"""What every token of an answer says."""

_TAG: Final = b"[chunks="
_STREAM_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n"
_SSE_HEAD: Final = _STREAM_HEAD % b"text/event-stream"
_STATE_HEAD: Final = _STREAM_HEAD % STATE_TYPE.encode()
_STATE: Final = http_chunk(encode_state(EngineState(ready=True, places=4096)))
_LENGTH_REQUIRED: Final = b"HTTP/1.1 411 Length Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOKENS: Final = 100


def stream_tag(chunks: int, gap_ms: int) -> str:
    """What a prompt has to hold for its answer to be a stream of `chunks` chunks, `gap_ms` apart."""
    return f"[chunks={chunks} gap_ms={gap_ms}]"


def parse_tag(body: bytes) -> tuple[int, float] | None:
    """(chunks, gap in seconds) that the prompt in `body` asks for, or None if it holds no tag."""
    start = body.find(_TAG)
    if start < 0:
        return None
    chunks, _, gap = body[start + len(_TAG) : body.index(b"]", start)].partition(b" gap_ms=")
    return int(chunks), int(gap) / 1e3


class Answers:
    """The bytes to answer with, made once.

    Args:
        model: the one model that there is.

    """

    def __init__(self, model: str) -> None:
        head = {"id": "chatcmpl-0", "created": 0, "model": model}

        def event(**fields: object) -> bytes:
            return http_chunk(b"data: " + orjson.dumps({**head, "object": "chat.completion.chunk", **fields}) + b"\n\n")

        usage = {"prompt_tokens": 40, "completion_tokens": _TOKENS, "total_tokens": 40 + _TOKENS}
        delta = {"role": "assistant", "content": TEXT.decode()}
        message = {"role": "assistant", "content": TEXT.decode() * _TOKENS}
        self.chunk = event(choices=[{"index": 0, "delta": delta, "finish_reason": None}])
        self.end = (
            event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
            + event(choices=[], usage=usage)
            + http_chunk(b"data: [DONE]\n\n")
            + CHUNKED_END
        )
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        self.whole = _json({**head, "object": "chat.completion", "choices": choices, "usage": usage})
        self.models = _json({"object": "list", "data": [{"id": model, "object": "model", "owned_by": "vllm"}]})
        self.other = _json({"ready": True, "status": "ok", "version": "0.0.0"})


class Backend(asyncio.Protocol):
    """One connection. A client sends its next request after the end of the last answer."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is no subclass of it

    def connection_lost(self, _: Exception | None) -> None:
        """Whatever is being streamed has nobody to go to."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Answer as soon as a request is here whole."""
        received = self._received
        received += data
        head_end = received.find(HEAD_END)
        if head_end < 0:
            return
        head, start = bytes(received[:head_end]), head_end + len(HEAD_END)
        length = content_length(head)
        if not head.startswith(b"POST"):
            self._look(head)
        elif length is None:
            self._write(_LENGTH_REQUIRED)
        elif len(received) < start + length:
            return
        else:
            self._complete(head, bytes(received[start:]))
        received.clear()

    def _look(self, head: bytes) -> None:
        path = head.split(b" ", 2)[1].decode()
        if path == STATE_PATH:
            self._write(_STATE_HEAD)
            self._beat()
        else:
            self._write(self._answers.models if path == "/v1/models" else self._answers.other)

    def _complete(self, head: bytes, body: bytes) -> None:
        if b"/render " in head:
            self._write(_rendered(body))
        elif tag := parse_tag(body):
            self._write(_SSE_HEAD)
            self._stream(*tag)
        else:
            self._write(self._answers.whole)

    def _stream(self, left: int, gap_s: float) -> None:
        if self._transport is None:
            return
        if left == 0:
            self._transport.write(self._answers.end)
            return
        self._transport.write(self._answers.chunk)
        if gap_s:
            self._loop.call_later(gap_s, self._stream, left - 1, gap_s)
        else:  # a write of its own in the loop's next turn, as an engine's steps are
            self._loop.call_soon(self._stream, left - 1, gap_s)

    def _beat(self) -> None:
        if self._transport is not None:
            self._transport.write(_STATE)
            self._loop.call_later(HEARTBEAT_S, self._beat)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _rendered(body: bytes) -> bytes:
    """What vLLM says that a prompt's tokens are (4 bytes each); vllm-router's cache_aware asks before each request."""
    tokens = memoryview(body)[: len(body) // 4 * 4].cast("I").tolist()
    return _json({"request_id": "render-0", "token_ids": tokens, "sampling_params": {}, "stream": False})


def _json(value: object) -> bytes:
    body = orjson.dumps(value)
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


async def serve(port: int, model: str) -> None:
    """Serve until cancelled."""
    answers = Answers(model)
    server = await asyncio.get_running_loop().create_server(lambda: Backend(answers), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))
