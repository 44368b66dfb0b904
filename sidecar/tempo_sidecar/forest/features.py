"""A request as numbers from which its length can be guessed: what it states, hints in its text, and hashed words.

Only the first and last characters of the prompt's last message, and the first of its opening (most often the system
prompt), are read, so that the cost is bounded whatever is sent. Words go into so few buckets that no text can be had
back from them.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from tempo_sidecar.lengths import LengthQuery

LAYOUT: Final = 1
"""Raised whenever a column changes its meaning: rows of another layout can't be mixed with these."""
CLASS: Final = 0
"""The column of the class, as a number that `Sample` gives it."""
PROMPT_TOKENS: Final = 1
"""The column of the prompt's tokens, as estimated."""

_BUCKETS: Final = 48
_PART: Final = 512
_MOST: Final = 1 << 24
"""Whole numbers up to here are exact in a row."""
_WORD: Final = re.compile(r"\w{1,8}")
_ASCII_WORD: Final = re.compile(rb"\w{1,8}")
_NUMBER: Final = re.compile(r"[0-9]{1,5}")
_CODE: Final = re.compile(r"[{}()\[\];=<>/\\]")
_ROLES: Final = {"user": 1, "assistant": 2, "tool": 3, "system": 4, "developer": 4}
_STATED: Final = 9
_HINTS: Final = 7
WIDTH: Final = _STATED + _HINTS + 2 * _BUCKETS

Row = NDArray[np.float32]


def features(query: LengthQuery) -> Row:
    """The row of a request, of `WIDTH` columns, all finite; that of the class is left 0. Never raises."""
    body = query.body or {}
    opening, head, tail = _parts(body)
    last = head if tail is head else f"{head} {tail}"
    row = np.empty(WIDTH, dtype=np.float32)
    row[:_STATED] = _stated(query, body)
    row[_STATED : _STATED + _HINTS] = _hints(last)
    row[-2 * _BUCKETS : -_BUCKETS] = _opening_words(opening)
    row[-_BUCKETS:] = _words(last)
    return row


def _stated(query: LengthQuery, body: Mapping[str, Any]) -> list[float]:
    turns = _turns(body)
    last = turns[-1] if turns and isinstance(turns[-1], dict) else {}
    role = last.get("role")
    cap = query.max_tokens
    return [
        0.0,  # CLASS
        _count(query.prompt_tokens),  # PROMPT_TOKENS
        _count(_MOST if cap is None else cap),
        _count(query.stage),
        float(len(turns)),
        float(_ROLES.get(role, 0) if isinstance(role, str) else 0),
        float(bool(body.get("tools"))),
        float(bool(body.get("response_format") or body.get("structured_outputs"))),
        float(bool(body.get("stream"))),
    ]


def _hints(text: str) -> list[float]:
    numbers = _NUMBER.findall(text)
    return [
        float(len(text)),
        float(text.count("?")),
        float(text.rstrip().endswith("?")),
        float(text.count("\n")),
        float(text.count("```")),
        float(len(_CODE.findall(text))),
        float(max(map(int, numbers), default=0)),  # such as in "in 200 words"
    ]


@lru_cache(maxsize=128)
def _opening_words(text: str) -> NDArray[np.intp]:
    """System prompts are few, and come again and again. Read-only, for the cache keeps it."""
    words = _words(text)
    words.flags.writeable = False
    return words


def _words(text: str) -> NDArray[np.intp]:
    lower = text.lower()
    if lower.isascii():  # the same words, and none to encode
        words = _ASCII_WORD.findall(lower.encode())
    else:
        words = [word.encode(errors="replace") for word in _WORD.findall(lower)]
    hashes = np.array([*map(crc32, words)], dtype=np.intp)
    return np.bincount(hashes % _BUCKETS, minlength=_BUCKETS)


def _parts(body: Mapping[str, Any]) -> tuple[str, str, str]:
    """The opening, and the last message's head and tail (the same, if it is short)."""
    prompt, turns = body.get("prompt") or body.get("input"), _turns(body)
    opening: list[str] = []
    last: list[str] = []
    if turns:
        opening = _texts(turns[0]) if len(turns) > 1 else []
        last = _texts(turns[-1])
    else:
        last = _texts(prompt)
    head, tail = (last[0][:_PART], last[-1][-_PART:]) if last else ("", "")
    short = len(last) == 1 and len(last[0]) <= _PART
    return (opening[0][:_PART] if opening else ""), head, (head if short else tail)


def _turns(body: Mapping[str, Any]) -> list[Any]:
    """A chat's messages, or the items of a response's input, where that is no text."""
    turns = body.get("messages") or body.get("input")
    return turns if isinstance(turns, list) else []


def _texts(content: object, depth: int = 3) -> list[str]:
    """Its first and last pieces of text, of prompts and messages in any form; token ids count as words."""
    if isinstance(content, str):
        return [content]
    if not depth:
        return []
    if isinstance(content, dict):
        return _texts(content.get("content") or content.get("text"), depth - 1)
    if not isinstance(content, list):
        return []
    ends = _ends(content, 32)
    if ends and all(isinstance(piece, int) for piece in ends):
        return [" ".join(map(str, ends))]
    return [text for piece in _ends(content, 4) for text in _texts(piece, depth - 1)]


def _ends(pieces: list[Any], count: int) -> list[Any]:
    return pieces[:count] + pieces[count:][-count:]


def _count(number: int) -> float:
    return float(min(max(number, 0), _MOST))
