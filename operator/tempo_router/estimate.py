"""What a request will cost, guessed well enough to balance replicas: they are told exact figures only afterwards."""

from collections.abc import Mapping
from typing import Any, Final

from tempo_api.prompt import prompt_estimate

_PROMPTS: Final = (b'"messages"', b'"prompt"', b'"input"')
_MOST_ANSWERS: Final = 128


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """About how many tokens the prompts have, all together."""
    return prompt_estimate(body)[0]


def prompt_of(raw: bytes) -> bytes:
    """The body from its prompt on, as it was sent: where two have the same prefix there, their prompts do."""
    starts = [at for name in _PROMPTS if (at := raw.find(name)) >= 0]
    return raw[min(starts) :] if starts else b""


def answers(body: Mapping[str, Any]) -> int:
    """How many answers the caller asks for."""
    return min(max(body.get("n") or 1, 1), _MOST_ANSWERS)


def output_tokens(usual: float, count: int, cap: int | None) -> float:
    """About how many tokens so many answers will have, all together, where one usually has `usual`, at most `cap`."""
    return count * max(usual if cap is None else min(usual, cap), 1.0)
