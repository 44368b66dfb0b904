"""The requests that every router gets, as bytes."""

from dataclasses import dataclass
from typing import Final

import orjson

from tempo_bench.routers.backend import stream_tag

_SYSTEM: Final = "You are a helpful assistant. Answer in plain words and in no more than three sentences. "
_NUMBER: Final = "#00000000"
_WHOLE_TOKENS: Final = 100


@dataclass(frozen=True, slots=True)
class Shape:
    """What a request asks for: the prompt's size, and a stream (if `chunks`) or a whole answer."""

    prompt_bytes: int = 300
    chunks: int = 0
    gap_ms: int = 0


class Requests:
    """Requests of one shape, alike but for a number at the prompt's end: they share a prefix, and none is a repetition.

    Args:
        shape: what they ask for.
        model: the model's name.

    """

    def __init__(self, shape: Shape, model: str) -> None:
        self.chunks = shape.chunks
        tag = stream_tag(shape.chunks, shape.gap_ms) if shape.chunks else ""
        filler = _SYSTEM * (shape.prompt_bytes // len(_SYSTEM) + 1)
        prompt = (tag + filler)[: shape.prompt_bytes - len(_NUMBER)] + _NUMBER
        body = orjson.dumps(
            {
                "model": model,
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": shape.chunks or _WHOLE_TOKENS,
                "stream": bool(shape.chunks),
            }
        )
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\naccept: */*\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._before, self._after = (head.encode() + body).split(_NUMBER.encode())
        self._made = 0

    def next(self) -> bytes:
        """Another request."""
        self._made += 1
        return b"%s#%08d%s" % (self._before, self._made, self._after)
