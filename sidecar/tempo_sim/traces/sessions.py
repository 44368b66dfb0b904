"""Traces of agents' sessions: calls one after another, with the time that tools and users take in between.

A session becomes one program, or several: it is cut where it answers its user, and where it does nothing for longer
than `Options.idle_s`. Within a program, waits stay as delays. These traces do not say when sessions began, so their
programs arrive as a Poisson process of one a second, sessions shuffled into each other, each in its own order, and
`at_rate` changes the rate. How long users wait between two programs is thereby lost.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest
from random import Random
from typing import Final

from tempo_sim.traces.blocks import parse_ranges, reblock
from tempo_sim.traces.draft import Draft, Options
from tempo_sim.traces.text import Lines, Row, csv_rows
from tempo_sim.workload import SimCall

BLOCK_TOKENS: Final = 64
"""Tokens in a block of `hash_block_ranges64`."""

ANSWER_S_PER_TOKEN: Final = 0.007
"""Of the time between two calls in `calls.csv`, what went into the answer; about 3% were faster."""

MAX_ROWS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """A stage of a session."""

    calls: tuple[tuple[Row, float], ...]
    """Rows, and how long after the stage before each begins, seconds."""
    idle_s: float = 0.0
    """How long the session did nothing before it."""
    ends: bool = False
    """Whether it ends with an answer to the user."""


Build = Callable[[int, Row, float], SimCall]
"""The call of a row, given its session's number and its delay."""


def read_coding_sessions(lines: Lines, options: Options) -> Iterator[Draft]:
    """Sessions of a coding agent: requests.csv of kv-cache-tester, one row a call, prefixes in blocks of 64 tokens.

    Sub-agents between two calls of the main one run side by side: their first calls are a stage, their second ones the
    next, and so on. The wait that the trace puts after them is counted from the end of the longest.
    """
    known: dict[int, int] = {}

    def build(session: int, row: Row, delay_s: float) -> SimCall:
        call = options.call(row.whole("input_tokens"), row.whole("output_tokens"), delay_s)
        try:
            ids = parse_ranges(row.text("hash_block_ranges64")) + (session << 32)  # they are local to the session
        except ValueError as error:
            raise row.error("hash_block_ranges64", str(error)) from None
        prefix = reblock(
            ids,
            trace_tokens=BLOCK_TOKENS * options.prompt_scale,
            engine_tokens=options.block_tokens,
            prompt_tokens=call.prompt_tokens,
            known=known,
        )
        return replace(call, prefix=prefix)

    sessions = _sessions(lines, "trace")
    yield from _drafts([list(_coding_steps(rows)) for rows in sessions], "trace", options, build)


def _coding_steps(rows: Sequence[Row]) -> Iterator[Step]:
    beside_s = 0.0  # how long the sub-agents since the main agent's last call took
    for sub, group in groupby(rows, key=lambda row: bool(row.text("parent_agent"))):
        if sub:
            agents: dict[str, list[Row]] = {}
            for row in group:
                agents.setdefault(row.text("agent"), []).append(row)
            beside_s = max(_end_s(calls[-1]) for calls in agents.values())
            for stage in zip_longest(*agents.values()):
                yield Step(tuple((row, _wait_s(row)) for row in stage if row))
        else:
            for row in group:
                wait_s = max(_wait_s(row) - beside_s, 0.0)
                yield Step(((row, wait_s),), wait_s, row.text("stop") == "end_turn")
                beside_s = 0.0


def _wait_s(row: Row) -> float:
    return row.seconds("think_time_s") if row.text("think_time_s") else 0.0


def _end_s(row: Row) -> float:
    return row.seconds("t_s") + (row.seconds("api_time_s") if row.text("api_time_s") else 0.0)


def read_agent_calls(lines: Lines, options: Options) -> Iterator[Draft]:
    """Agents' loops: calls.csv derived from lmcache-agent-trace, lengths in characters.

    It has the time from call to call; what an answer took is taken off (`ANSWER_S_PER_TOKEN`), the rest is the tool's.
    Where the prompts of a session only ever grow, each extends the one before; otherwise no prefix is known.
    """
    sessions = _sessions(lines, "session")
    growing = [_growing(rows) for rows in sessions]

    def tokens(row: Row, field: str) -> float:
        return row.whole(field) / options.chars_per_token

    def build(session: int, row: Row, delay_s: float) -> SimCall:
        call = options.call(tokens(row, "input_chars"), round(tokens(row, "output_chars")), delay_s)
        blocks, first = call.prompt_tokens // options.block_tokens, session << 32
        return replace(call, prefix=tuple(range(first, first + blocks))) if growing[session] else call

    def steps(rows: Sequence[Row]) -> Iterator[Step]:
        free_s = 0.0
        for row in rows:
            wait_s = max(row.seconds("t_s") - free_s, 0.0)
            yield Step(((row, wait_s),), wait_s)
            free_s = row.seconds("t_s") + ANSWER_S_PER_TOKEN * tokens(row, "output_chars")

    yield from _drafts([list(steps(rows)) for rows in sessions], "session", options, build)


def _growing(rows: Sequence[Row]) -> bool:
    lengths = [row.whole("input_chars") for row in rows]
    return lengths == sorted(lengths)


def _sessions(lines: Lines, field: str) -> list[list[Row]]:
    sessions: dict[str, list[Row]] = {}
    for number, row in enumerate(csv_rows(lines)):
        if number == MAX_ROWS:
            raise lines.error(f"is row {MAX_ROWS}, and sessions are read whole; cut the file")
        sessions.setdefault(row.text(field), []).append(row)
    return list(sessions.values())


def _drafts(sessions: Sequence[Sequence[Step]], field: str, options: Options, build: Build) -> Iterator[Draft]:
    """The sessions' programs, as they arrive. Calls are built as they are asked for, since prefixes are long."""
    programs = [list(_programs(steps, options)) for steps in sessions]
    order = [session for session, own in enumerate(programs) for _ in own]
    random = Random(f"{options.seed} when")  # noqa: S311  # reproducible on purpose
    random.shuffle(order)
    at_s, done = 0.0, [0] * len(programs)
    for session in order:
        at_s += random.expovariate(1.0)
        number, done[session] = done[session], done[session] + 1
        program = programs[session][number]
        first = program[0].calls[0][0]
        stages = tuple(
            tuple(build(session, row, delay_s if stage else 0.0) for row, delay_s in step.calls)
            for stage, step in enumerate(program)
        )
        name = first.text(field)
        yield Draft(first.line, at_s, stages, first.cells, f"{name}-{number}", tenant=name, of_session=True)


def _programs(steps: Sequence[Step], options: Options) -> Iterator[list[Step]]:
    program: list[Step] = []
    for step in steps:
        if program and (step.idle_s > options.idle_s or (program[-1].ends and options.turns)):
            yield program
            program = []
        program.append(step)
    yield program
