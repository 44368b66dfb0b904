"""What a caller asks for, resolved against what the pool grants: class, targets, tenant, place in a program.

A caller may ask for less than its class, never for more: looser targets are taken, tighter ones fall back to the
class's own. Every header that is there must be well formed, even where the class has no use for it. No I/O; the one
thing that is not a function of the arguments is the random id of a collective call that belongs to no program.
"""

import difflib
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Final, NamedTuple

from tempo_api import wire
from tempo_api.manifest import Pool
from tempo_api.openai import APIError, Ending
from tempo_core.programs import Call, Programs
from tempo_core.slo import Pattern, SLOClass

Headers = Mapping[str, str]
"""By lower-case name, or any case if the mapping does not mind."""

_LONGEST_VALUE: Final = 256
_STAGES: Final = 10_000
_FLAGS: Final = {"1": True, "true": True, "0": False, "false": False}


class Resolved(NamedTuple):
    """A request as the router serves it."""

    intake: wire.Intake
    slo: SLOClass
    """Its class, with the looser targets that the caller asked for."""
    call: Call | None
    """Its place in its program, for a collective class only; whoever resolved it owes `Programs.end`."""
    clamped: tuple[str, ...]
    """The targets that were tighter than the class's own, and were not granted."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the headers say, in seconds."""

    ttft_s: float | None
    tbt_s: float | None
    deadline_s: float | None
    program_deadline_s: float | None
    program: str | None
    stage: int | None
    final: bool


_NOTHING: Final = _Asked(None, None, None, None, None, None, final=False)
_WHO: Final = frozenset({*wire.CLASS_HEADERS, *wire.TENANT_HEADERS})
"""Headers by which a class and a tenant are named; the others say what is asked for."""
_HEADERS: Final = _WHO | {
    *wire.TTFT_HEADERS, *wire.TBT_HEADERS, wire.DEADLINE_HEADER, wire.PROGRAM_HEADER, *wire.SESSION_HEADERS,
    wire.STAGE_HEADER, wire.PROGRAM_DEADLINE_HEADER, wire.FINAL_HEADER,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Grant:
    """What whoever asks may have."""

    tenant: str | None = None
    """In place of whatever the request says; None: as it says."""
    classes: tuple[str, ...] | None = None
    """Those that may be used, the first being what a request without a class gets; None: all of the pool's."""


ANYTHING: Final = Grant()
"""What everybody may have where nobody is asked for an API key."""


def resolve(
    headers: Headers,
    body: Mapping[str, Any],
    pool: Pool,
    programs: Programs,
    now_s: float,
    grant: Grant = ANYTHING,
) -> Resolved:
    """Resolve a request that arrives at `now_s` (absolute seconds, the clock of `programs`).

    A collective call begins in `programs`. Its `intake.deadline_s` counts from its own arrival to its stage's
    cumulative sub-deadline, so it is negative where the program is late already.

    Raises:
        APIError: `INVALID_VALUE`, naming the header at fault, or `CLASS_NOT_ALLOWED`; `programs` is then untouched.

    """
    known = _known(headers)
    slo = pool.classes[_granted(_class_asked(known, body, pool), pool, grant)]
    asked = _NOTHING if _WHO.issuperset(known) else _read(known)
    tenant = _tenant(known, headers, body) if grant.tenant is None else grant.tenant
    if slo.pattern is Pattern.COLLECTIVE:
        return _collective(slo, asked, tenant, programs, now_s)
    return _single(slo, asked, tenant)


def _known(headers: Headers) -> dict[str, str]:
    """Those of the headers that are read here, by lower-case name; most requests have none, or a class."""
    known: dict[str, str] = {}
    for name, value in headers.items():
        if (lower := name.lower()) in _HEADERS:
            known.setdefault(lower, value)
    return known


def _single(slo: SLOClass, asked: _Asked, tenant: str) -> Resolved:
    looser: dict[str, float] = {}
    tighter: tuple[str, ...] = ()
    if given := _targets(slo.pattern, asked):
        looser = {name: value for name, value in given.items() if value > getattr(slo.objectives, name)}
        tighter = tuple([_TARGETS[name] for name, value in given.items() if value < getattr(slo.objectives, name)])
        slo = replace(slo, objectives=replace(slo.objectives, **looser)) if looser else slo
    intake = wire.Intake(
        slo_class=slo.name,
        ttft_s=looser.get("ttft_s"),
        tbt_s=looser.get("tbt_s"),
        deadline_s=slo.deadline_s() if slo.pattern is Pattern.DEADLINE else None,
        tenant=tenant,
    )
    return Resolved(intake, slo, None, tighter)


def _targets(pattern: Pattern, asked: _Asked) -> dict[str, float]:
    """What was asked for of the targets that the pattern has."""
    if asked is _NOTHING:
        return {}
    wanted = {
        Pattern.LATENCY: {"ttft_s": asked.ttft_s, "tbt_s": asked.tbt_s},
        Pattern.DEADLINE: {"ttlt_s": asked.deadline_s},
    }.get(pattern, {})
    return {name: value for name, value in wanted.items() if value is not None}


_TARGETS: Final = {"ttft_s": "ttft", "tbt_s": "tbt", "ttlt_s": "deadline"}


def _collective(slo: SLOClass, asked: _Asked, tenant: str, programs: Programs, now_s: float) -> Resolved:
    final = asked.final or asked.program is None
    call = programs.begin(
        asked.program or secrets.token_hex(8),
        slo,
        now_s,
        stage=asked.stage,
        deadline_s=asked.program_deadline_s,
        final=final,
    )
    clamped = asked.program_deadline_s is not None and asked.program_deadline_s < slo.deadline_s()
    intake = wire.Intake(
        slo_class=slo.name,
        deadline_s=call.deadline_s - now_s,
        program=call.program,
        stage=call.stage,
        program_elapsed_s=now_s - call.program_arrival_s,
        final=final,
        banked_gain=call.banked_gain,
        tenant=tenant,
    )
    return Resolved(intake, slo, call, ("program_deadline",) if clamped else ())


def _class_asked(known: Headers, body: Mapping[str, Any], pool: Pool) -> str | None:
    """Our own header must name a class; another gateway's may mean something else, and is then passed over."""
    names = [_text(known, header) for header in wire.CLASS_HEADERS] if known else []
    if names and (name := names[0]) is not None and name not in pool.classes:
        near = difflib.get_close_matches(name, pool.classes, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        problem = f"{name!r} is no class of this pool.{hint} Its classes are {', '.join(pool.classes)}."
        raise _refusal(wire.CLASS_HEADER, problem)
    tier = body.get("service_tier")
    if isinstance(tier, str):
        names.append(pool.spec.router.service_tiers.get(tier))
    return next((name for name in names if name and name in pool.classes), None)


def _granted(asked: str | None, pool: Pool, grant: Grant) -> str:
    if grant.classes is None:
        return asked or pool.default_class
    allowed = [name for name in grant.classes if name in pool.classes]
    if asked in allowed or (asked is None and allowed):
        return asked or allowed[0]
    message = (
        f"This API key may not use the class {asked!r}; it may use {', '.join(allowed)}."
        if allowed
        else "This API key may use no class that this pool serves."
    )
    raise APIError(Ending.CLASS_NOT_ALLOWED, message, param=wire.CLASS_HEADERS[0])


def _tenant(known: Headers, headers: Headers, body: Mapping[str, Any]) -> str:
    """Named by a gateway's header; else a digest of the key, or of `user`: neither should turn up in a log.

    `safety_identifier` is OpenAI's newer name for `user`.
    """
    named = _first(known, wire.TENANT_HEADERS) if known else None
    if named is not None:
        return named
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return _digest(key.strip())
    user = body.get("user") or body.get("safety_identifier")
    return _digest(user) if isinstance(user, str) and user else ""


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()


def _read(known: Headers) -> _Asked:
    return _Asked(
        ttft_s=_seconds(known, wire.TTFT_HEADERS),
        tbt_s=_seconds(known, wire.TBT_HEADERS),
        deadline_s=_seconds(known, (wire.DEADLINE_HEADER,)),
        program_deadline_s=_seconds(known, (wire.PROGRAM_DEADLINE_HEADER,)),
        program=_first(known, (wire.PROGRAM_HEADER, *wire.SESSION_HEADERS)),
        stage=_stage(known),
        final=_flag(known, wire.FINAL_HEADER),
    )


def _first(known: Headers, names: Iterable[str]) -> str | None:
    return next((value for name in names if (value := _text(known, name)) is not None), None)


def _text(known: Headers, name: str) -> str | None:
    value = known.get(name)
    if value is None or not (value := value.strip()):
        return None
    if len(value) > _LONGEST_VALUE or not value.isprintable():
        raise _refusal(name, f"it must be printable text of at most {_LONGEST_VALUE} characters.")
    return value


def _seconds(known: Headers, names: Iterable[str]) -> float | None:
    for name in names:
        text = _text(known, name)
        if text is None:
            continue
        try:
            milliseconds = float(text)
        except ValueError:
            milliseconds = -1.0
        if not (isfinite(milliseconds) and milliseconds > 0.0):
            raise _refusal(name, f"{text!r} is no number of milliseconds above zero.")
        return milliseconds / 1e3
    return None


def _stage(known: Headers) -> int | None:
    text = _text(known, wire.STAGE_HEADER)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and int(text) < _STAGES):
        raise _refusal(wire.STAGE_HEADER, f"{text!r} is no whole number from 0 to {_STAGES - 1}.")
    return int(text)


def _flag(known: Headers, name: str) -> bool:
    text = _text(known, name)
    if text is not None and text.lower() not in _FLAGS:
        raise _refusal(name, f"{text!r} is neither 1 nor 0 (true, false).")
    return text is not None and _FLAGS[text.lower()]


def _refusal(header: str, problem: str) -> APIError:
    return APIError(Ending.INVALID_VALUE, f"{header}: {problem}", param=header)
