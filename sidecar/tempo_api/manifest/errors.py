"""The one error that a bad manifest is, and msgspec's messages in its words."""

import difflib
import re
from collections.abc import Iterable
from typing import Final

_AT: Final = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_UNKNOWN: Final = re.compile(r"^Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_MISSING: Final = re.compile(r"^Object missing required field `(?P<name>.*)`$")
_FRACTION: Final = "Expected `int | str`, got `float`"


class ManifestError(ValueError):
    """A manifest that can't be used; its text is one line: where, what, and what to write instead."""

    def __init__(self, where: str, path: str, problem: str) -> None:
        self.where = where
        self.path = path
        self.problem = problem
        super().__init__(": ".join(part for part in (where, path, problem) if part))


def explain(where: str, text: str, field_names: Iterable[str]) -> ManifestError:
    """Msgspec's message in our words: the path first, and a near name among `field_names` where one is unknown."""
    match = _AT.match(text)
    problem, path = (match["problem"], match["path"] or "") if match else (text, "")
    if unknown := _UNKNOWN.match(problem):
        name = unknown["name"]
        return ManifestError(where, _join(path, name), f"unknown field{did_you_mean(name, field_names)}")
    if missing := _MISSING.match(problem):
        return ManifestError(where, _join(path, missing["name"]), "is required")
    if problem == _FRACTION:
        return ManifestError(where, path, 'a number with a fraction is written in quotes here, such as "0.5"')
    return ManifestError(where, path, problem[:1].lower() + problem[1:])


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """The end of a message: the candidate that is nearest to `name`, or nothing."""
    near = difflib.get_close_matches(name, list(candidates), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
