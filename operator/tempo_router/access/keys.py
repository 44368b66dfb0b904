"""A file of API keys.

    keys:
      - name: team-a                 # the tenant; the keys of one name share what it has in flight
        key: sk-...                  # or its SHA-256 in hexadecimal: `printf %s "$KEY" | sha256sum`
        classes: [chat, tool]        # those that it may use, the first by default; absent: all
        maxConcurrentRequests: 50    # absent: as many as there is room for
        ceilings: {tool: 20}         # the same of single classes
      - name: team-b
        sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

Pure, but for `read_keys`. No error holds anything of a key.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import yaml

from tempo_api.manifest.errors import did_you_mean
from tempo_api.manifest.spec import Name

LARGEST_FILE: Final = 1 << 20
"""Bytes; a Secret is no larger."""
MOST_KEYS: Final = 1000

_AT: Final = re.compile(r" - at `\$\.?(?P<path>[\w.\[\]]*)`\Z")
_HINTS: Final = {
    "name": "must be 1 to 63 letters, digits, dashes, dots and underscores, the first a letter or a digit",
    "key": "must be 8 to 512 visible ASCII characters, in quotes where YAML would read something else than text",
    "sha256": 'must be the 64 hexadecimal digits that `printf %s "$KEY" | sha256sum` prints',
}

Ceiling = Annotated[int, msgspec.Meta(ge=1)]


class KeysError(ValueError):
    """A file of keys that can't be used; the text is one line: where, what is wrong, and what to write."""


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """An entry of the file, as written."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][-._A-Za-z0-9]{0,62}\Z")]
    key: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{8,512}\Z")] | None = None
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F]{64}\Z")] | None = None
    classes: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=64)] | None = None
    max_concurrent_requests: Ceiling | None = None
    ceilings: Annotated[dict[Name, Ceiling], msgspec.Meta(max_length=64)] = {}

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the key."""
        return bytes.fromhex(self.sha256) if self.sha256 else digest(self.key or "")


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: Annotated[list[Key], msgspec.Meta(max_length=MOST_KEYS)]


def digest(key: str) -> bytes:
    """The SHA-256 of a key, whatever characters a client put into it."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def read_keys(path: Path) -> list[Key]:
    """The keys that a file holds; there may be none.

    Raises:
        KeysError: for a file that can't be read or holds anything else.

    """
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise KeysError(f"{path}: can't be read: {error.strerror}") from error
    try:
        return parse_keys(raw)
    except KeysError as error:
        raise KeysError(f"{path}: {error}") from None  # its cause may hold a key


def parse_keys(raw: bytes) -> list[Key]:
    """The same of the file's content.

    Raises:
        KeysError: for anything but well-formed keys, each there once.

    """
    if len(raw) > LARGEST_FILE:
        raise KeysError(f"is larger than {LARGEST_FILE} bytes; a file of keys holds at most {MOST_KEYS}")
    document = _load(raw)
    try:
        keys = msgspec.convert(document, _File).keys
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from None
    _check(keys)
    return keys


def _load(raw: bytes) -> Any:
    """The YAML document. The parser's own words are left out, for they may quote a key."""
    try:
        return yaml.safe_load(raw)  # not libyaml's loader, which crashes where the nesting is deep
    except yaml.MarkedYAMLError as error:
        line = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise KeysError(f"not YAML{line}") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        # No text, or a value that no type can hold, such as a date in month 13; or nested beyond all bounds.
        raise KeysError("not YAML that can be read; write a list `keys:` with a name and a key in each entry") from None


def _explain(text: str) -> KeysError:
    """Msgspec's message in our words, without the names of fields that may be anything."""
    found = _AT.search(text)
    path, problem = (found["path"], text[: found.start()]) if found else ("", text)
    leaf = path.rpartition(".")[2]
    if problem.startswith("Object contains unknown field `"):
        fields = _File.__struct_encode_fields__ if not path else Key.__struct_encode_fields__
        near = did_you_mean(problem.split("`")[1], fields)
        problem = f"unknown field{near or '; the fields are ' + ', '.join(fields)}"
    elif missing := re.fullmatch("Object missing required field `(.*)`", problem):
        path, problem = ".".join(part for part in (path, missing[1]) if part), "is required"
    elif not path:
        problem = "write a list `keys:` with a name and a key in each entry"
    else:
        problem = _HINTS.get(leaf, problem[:1].lower() + problem[1:])
    return KeysError(": ".join(part for part in (path, problem) if part))


def _check(keys: Iterable[Key]) -> None:
    """What the fields' types can't say."""
    seen: dict[bytes, int] = {}
    for index, key in enumerate(keys):
        where = f"keys[{index}]"
        if (key.key is None) == (key.sha256 is None):
            raise KeysError(f"{where}: give key or sha256, one of them")
        first = seen.setdefault(key.digest, index)
        if first != index:
            raise KeysError(f"{where}: is the same key as keys[{first}]; each needs one of its own")
        if len(set(key.classes or ())) < len(key.classes or ()):
            raise KeysError(f"{where}.classes: has a class twice")
        if key.classes is not None and (odd := key.ceilings.keys() - set(key.classes)):
            raise KeysError(f"{where}.ceilings: {min(odd)} is none of the key's classes, {', '.join(key.classes)}")
