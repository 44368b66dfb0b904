"""What a request will cost, guessed well enough to balance replicas: they are told exact figures only afterwards."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from tempo_api.prompt import prompt_estimate
from tempo_core.lengths import ClassLengths

_PROMPTS: Final = (b'"messages"', b'"prompt"', b'"input"')
_MOST_CHOICES: Final = 128


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """About how many tokens the prompts have, all together."""
    return prompt_estimate(body)[0]


def prompt_of(raw: bytes) -> bytes:
    """The body from its prompt on, as it was sent: where two have the same prefix there, their prompts do."""
    starts = [at for name in _PROMPTS if (at := raw.find(name)) >= 0]
    return raw[min(starts) :] if starts else b""


class Expected(NamedTuple):
    """How many tokens an answer is likely to have, all its choices together."""

    mean: int
    median: int


class OutputLengths(ClassLengths):
    """The usual output length of each class, in tokens."""

    def expected(self, slo_class: str, body: Mapping[str, Any], cap: int | None) -> Expected:
        """What an answer to `body` is likely to have; `cap`: `output_cap(body)`."""
        choices = min(max(body.get("n") or 1, 1), _MOST_CHOICES)
        mean, median = self.usual(slo_class)
        if cap is not None:
            mean, median = min(mean, cap), min(median, cap)
        return Expected(choices * max(round(mean), 1), choices * max(round(median), 1))
