"""How many tokens a request's prompt has, guessed from its body: nothing tokenises before the engine does."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

_CHARACTERS_A_TOKEN: Final = 4
_MEDIA_CHARACTERS: Final = 512 * _CHARACTERS_A_TOKEN
"""Of an image, a recording or a clip: what models make of one goes from 85 tokens to some thousands."""
_MEDIA: Final = frozenset(
    {
        "image_url",
        "input_image",
        "image_embeds",
        "input_audio",
        "audio_url",
        "video_url",
        "input_video",
        "file",
        "input_file",
    }
)
"""Types of content parts that hold no text, however long the data URL is that they hold."""
_TEXTS: Final = frozenset({"content", "text", "tool_calls", "function", "arguments", "output"})
"""Where messages, the items of a response's input, and their parts have text."""
_DEEPEST: Final = 6
"""`messages` is a list of objects with a list of tool calls, which are objects with a function with arguments."""


def prompt_estimate(body: Mapping[str, Any]) -> tuple[int, int]:
    """About how many tokens the prompt has, and how many prompts there are.

    Text counts by its characters, token ids as they are, an image as a few hundred tokens, tools as the JSON that they
    come in.
    """
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt:
        if isinstance(prompt[0], int):
            return len(prompt), 1
        return sum(len(p) if isinstance(p, list) else _tokens(_characters(p, 0)) for p in prompt), len(prompt)
    if isinstance(prompt, str):
        return _tokens(len(prompt)), 1
    said = sum([_characters(body[name], _DEEPEST) for name in ("messages", "input", "instructions") if name in body])
    return _tokens(said + _written(body.get("tools"))), 1


def _characters(value: object, depth: int) -> int:
    if isinstance(value, str):
        return len(value)
    if not depth:
        return 0
    if isinstance(value, list):
        return sum([_characters(item, depth - 1) for item in value])
    if isinstance(value, dict):
        kind = value.get("type")
        if isinstance(kind, str) and kind in _MEDIA:
            return _MEDIA_CHARACTERS
        return sum([_characters(value[name], depth - 1) for name in value if name in _TEXTS])
    return 0


def _written(tools: object) -> int:
    try:
        return len(orjson.dumps(tools)) if tools else 0
    except orjson.JSONEncodeError:  # nested too deeply; the engine will say so
        return 0


def _tokens(characters: int) -> int:
    return characters // _CHARACTERS_A_TOKEN + 1
