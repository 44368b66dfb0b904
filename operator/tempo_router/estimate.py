"""What a request will cost, guessed well enough to balance replicas: they are told exact figures only afterwards."""

from collections.abc import Mapping
from typing import Any, Final

from tempo_api.prompt import prompt_estimate

_PROMPTS: Final = (b'"messages"', b'"prompt"', b'"input"')
_MOST_CHOICES: Final = 128
_FIRST_GUESS: Final = 256.0
_MEMORY: Final = 0.05
"""The share of a class's mean length that its latest answer makes."""


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """About how many tokens the prompts have, all together."""
    return prompt_estimate(body)[0]


def prompt_of(raw: bytes) -> bytes:
    """The body from its prompt on, as it was sent: where two have the same prefix there, their prompts do."""
    starts = [at for name in _PROMPTS if (at := raw.find(name)) >= 0]
    return raw[min(starts) :] if starts else b""


class OutputLengths:
    """The mean output length of each class, in tokens."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}

    def expected(self, slo_class: str, body: Mapping[str, Any], cap: int | None) -> int:
        """How many tokens the answer is likely to have, all its choices together; `cap`: `output_cap(body)`."""
        mean = self._means.get(slo_class, _FIRST_GUESS)
        choices = min(max(body.get("n") or 1, 1), _MOST_CHOICES)
        return choices * max(round(mean if cap is None else min(mean, cap)), 1)

    def learn(self, slo_class: str, tokens: int) -> None:
        """An answer is complete."""
        mean = self._means.get(slo_class, float(tokens))
        self._means[slo_class] = mean + _MEMORY * (tokens - mean)
