import asyncio
import re
import time

import pytest
from aiohttp import web

from support.fake_engine import MODEL, FakeEngine, event, word
from tempo_bench.accounting import settle
from tempo_bench.client import Target
from tempo_bench.driver import drive, saturate
from tempo_bench.progress import Tally
from tempo_bench.workload import Call, Kind, Unit, Workload, WorkloadSpec
from tempo_core.slo import Objectives, Pattern, SLOClass

CLASSES = {
    "chat": SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=5.0, tbt_s=1.0)),
    "tool": SLOClass("tool", Pattern.DEADLINE, Objectives(ttlt_s=5.0)),
    "agent": SLOClass("agent", Pattern.COLLECTIVE, Objectives(per_stage_s=5.0)),
}
SPEC = WorkloadSpec(1.0, 1.0, 1)


def unit(kind, at_s=0.0, *, widths=(1,), prompt="say {}".format):
    stages = tuple(
        tuple(Call(f"{prompt(stage)} [earlier answers]", 100, 5) for _ in range(width))
        for stage, width in enumerate(widths)
    )
    return Unit(f"{kind}-{at_s}", kind, at_s, stages)


async def send(engine, *units, drain_s=20.0):
    tally = Tally(CLASSES)
    target = Target(f"{engine.url}/v1", MODEL)
    return await drive(Workload(SPEC, units), target, tally, drain_s=drain_s), tally


async def test_a_streamed_answer_is_stamped_token_by_token():
    async with FakeEngine(tokens=4, pace_s=0.05).running() as engine:
        (record,), _ = await send(engine, unit(Kind.CHAT))
    (call,) = record.calls
    assert [count for _, count in call.stamps] == [1, 1, 1, 1]
    assert call.text == "".join(word(index) for index in range(4))
    assert (call.prompt_tokens, call.output_tokens, call.error) == (7, 4, None)
    result = settle(record, CLASSES)
    assert 0.05 <= result.ttft_s < 1.0
    assert len(result.gaps_s) == 3
    assert all(gap >= 0.03 for gap in result.gaps_s)


async def test_a_whole_answer_has_one_stamp_and_the_servers_token_counts():
    async with FakeEngine(tokens=9).running() as engine:
        (record,), _ = await send(engine, unit(Kind.TOOL))
    (call,) = record.calls
    assert [count for _, count in call.stamps] == [9]
    assert settle(record, CLASSES).gain == 7 + 2 * 9
    assert "stream_options" not in engine.bodies[0]


async def test_requests_carry_class_cap_seed_and_temperature():
    async with FakeEngine().running() as engine:
        await send(engine, unit(Kind.CHAT))
    body, headers = engine.bodies[0], {name.lower(): value for name, value in engine.headers[0].items()}
    assert (body["max_tokens"], body["seed"], body["temperature"], body["stream"]) == (100, 5, 0, True)
    assert body["stream_options"]["include_usage"] is True
    assert headers["x-tempo-slo-class"] == "chat"
    assert "x-tempo-program-id" not in headers


async def test_a_program_names_itself_its_stage_and_its_end():
    async with FakeEngine().running() as engine:
        await send(engine, unit(Kind.AGENT, widths=(2, 1)))
    seen = [{name.lower(): value for name, value in headers.items()} for headers in engine.headers]
    assert {headers["x-tempo-program-id"] for headers in seen} == {"agent-0.0"}
    assert [headers["x-tempo-stage"] for headers in seen] == ["0", "0", "1"]
    assert ["x-tempo-program-final" in headers for headers in seen] == [False, False, True]


async def test_stages_run_in_order_and_their_calls_in_parallel():
    async with FakeEngine(tokens=1, pace_s=0.1).running() as engine:
        (record,), _ = await send(engine, unit(Kind.AGENT, widths=(3, 1, 3, 1)))
    assert [len(stage) for stage in record.stages] == [3, 1, 3, 1]
    for earlier, later in zip(record.stages, record.stages[1:], strict=False):
        assert max(call.ended_s for call in earlier) <= min(call.sent_s for call in later)
    for stage in record.stages:
        assert max(call.sent_s for call in stage) < min(call.ended_s for call in stage)


async def test_a_later_stage_sees_what_the_earlier_one_answered():
    async with FakeEngine(tokens=2).running() as engine:
        await send(engine, unit(Kind.AGENT, widths=(2, 1)))
    contents = [body["messages"][0]["content"] for body in engine.bodies]
    assert contents[0] == "say 0 "
    assert contents[2] == "say 1 -  w0 w1\n-  w0 w1"


async def test_a_slow_server_does_not_slow_arrivals():
    async with FakeEngine(tokens=1, pace_s=0.5).running() as engine:
        records, _ = await send(engine, *(unit(Kind.TOOL, 0.02 * index) for index in range(10)))
    sent = [record.calls[0].sent_s for record in records]
    assert all(at_s == pytest.approx(0.02 * index, abs=0.1) for index, at_s in enumerate(sent))
    assert max(sent) < min(record.calls[0].ended_s for record in records)


async def test_a_refusal_is_an_error_with_the_servers_words():
    async with FakeEngine(refuse_with=429).running() as engine:
        (record,), tally = await send(engine, unit(Kind.TOOL))
    assert record.error.startswith("HTTP 429: ")
    assert tally.counts[Kind.TOOL].failed == 1


@pytest.mark.parametrize("die_after", [0, 2])
async def test_a_connection_that_breaks_is_an_error(die_after):
    async with FakeEngine(die_after=die_after).running() as engine:
        (record,), _ = await send(engine, unit(Kind.CHAT))
    assert record.error
    assert settle(record, CLASSES).gain == 0.0


async def test_a_failed_call_ends_its_program():
    async with FakeEngine(refuse_with=500).running() as engine:
        (record,), _ = await send(engine, unit(Kind.AGENT, widths=(2, 1)))
    assert len(record.stages) == 1
    assert len(engine.bodies) == 2


async def test_nothing_is_awaited_beyond_the_drain_time():
    async with FakeEngine(hold=asyncio.Event()).running() as engine:
        began = time.monotonic()
        (record,), _ = await send(engine, unit(Kind.CHAT), drain_s=0.3)
        engine.hold.set()
    assert time.monotonic() - began < 5.0
    assert record.error == "not answered within the time that the run allows"


async def test_a_server_that_is_not_there_is_an_error_not_a_crash():
    engine = FakeEngine(url="http://127.0.0.1:9")
    (record,), _ = await send(engine, unit(Kind.TOOL))
    assert "ClientConnectorError" in record.error


async def test_the_tally_counts_what_arrived_what_ended_and_what_attained():
    async with FakeEngine().running() as engine:
        _, tally = await send(engine, unit(Kind.CHAT), unit(Kind.TOOL), unit(Kind.TOOL, 0.01))
    count = tally.counts[Kind.TOOL]
    assert (count.arrived, count.done, count.attained, count.failed) == (2, 2, 2, 0)
    assert count.gain == 2 * (7 + 2 * 5)


async def test_a_closed_loop_keeps_its_units_in_flight_and_lets_the_last_ones_end():
    async with FakeEngine(tokens=1, pace_s=0.05).running() as engine:
        units = [unit(Kind.TOOL, float(index)) for index in range(1000)]
        target = Target(f"{engine.url}/v1", MODEL)
        records = await saturate(units, target, Tally(CLASSES), in_flight=4, seconds=0.4)
    assert 8 <= len(records) <= 40
    assert all(record.error is None for record in records)
    begun = sorted((call.sent_s, call.ended_s) for record in records for call in record.calls)
    at_once = [sum(s <= t < e for s, e in begun) for t, _ in begun]
    assert max(at_once) == 4


class FakeStream:
    """A server that streams the given events and nothing else."""

    def __init__(self, *events):
        self.events = events

    async def answer(self, request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for data in self.events:
            await response.write(data)
        return response

    async def chat(self):
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            (record,), _ = await send(self, unit(Kind.CHAT))
            return record.calls[0]
        finally:
            await runner.cleanup()


def piece(text, tokens=None):
    usage = None if tokens is None else {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens}
    return event({"choices": [{"index": 0, "delta": {"content": text}}], "usage": usage})


DONE = b"data: [DONE]\n\n"


async def test_usage_in_every_chunk_counts_tokens_that_share_one():
    call = await FakeStream(piece("", 0), piece("a b c", 3), piece("", 3), piece("d", 4), DONE).chat()
    assert [count for _, count in call.stamps] == [3, 1]
    assert call.text == "a b cd"


async def test_usage_at_the_end_puts_the_count_right():
    last = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}})
    call = await FakeStream(piece("a"), piece("b"), last, DONE).chat()
    assert call.output_tokens == 5
    assert call.prompt_tokens == 3


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ((piece("a", 1), event({"error": {"message": "engine died"}}), DONE), "error in the answer: .*engine died"),
        ((piece("a", 1),), "the stream ended without"),
        ((DONE,), "the answer holds no token"),
        ((b"data: not json\n\n",), "DecodeError"),
        ((b": a comment\n\n", b"event: ping\n\n", piece("a", 1), DONE), None),
    ],
)
async def test_a_stream_that_goes_wrong_says_how(events, error):
    call = await FakeStream(*events).chat()
    if error is None:
        assert call.error is None
    else:
        assert call.error is not None
        assert re.search(error, call.error)
