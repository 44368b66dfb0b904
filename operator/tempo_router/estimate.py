"""What a request will cost, guessed well enough to balance replicas: they are told exact figures only afterwards."""

from collections.abc import Mapping
from typing import Any, Final

from tempo_api.openai import output_cap

_CHARACTERS_PER_TOKEN: Final = 4
_DEEPEST: Final = 5
"""`messages` is a list of objects whose content is a list of objects with a text."""
_MOST_CHOICES: Final = 128
_FIRST_GUESS: Final = 256.0
_MEMORY: Final = 0.05
"""The share of a class's mean length that its latest answer makes."""


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """About how many tokens a completion's prompt has: its characters by four; token ids count as they are."""
    return round(_tokens(body.get("messages"), _DEEPEST) + _tokens(body.get("prompt"), _DEEPEST))


def _tokens(value: object, depth: int) -> float:
    match value:
        case str():
            return len(value) / _CHARACTERS_PER_TOKEN
        case [int(), *_]:
            return len(value)
        case list() if depth:
            return sum(_tokens(item, depth - 1) for item in value)
        case {"content": inner} | {"text": inner} if depth:
            return _tokens(inner, depth - 1)
    return 0.0


class OutputLengths:
    """The mean output length of each class, in tokens."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}

    def expected(self, slo_class: str, body: Mapping[str, Any]) -> int:
        """How many tokens the answer to this request is likely to have, all its choices together."""
        mean = self._means.get(slo_class, _FIRST_GUESS)
        cap = output_cap(body)
        choices = min(max(body.get("n") or 1, 1), _MOST_CHOICES)
        return choices * max(round(mean if cap is None else min(mean, cap)), 1)

    def learn(self, slo_class: str, tokens: int) -> None:
        """An answer is complete."""
        mean = self._means.get(slo_class, float(tokens))
        self._means[slo_class] = mean + _MEMORY * (tokens - mean)
