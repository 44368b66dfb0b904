"""Replicas that fail on command, what clients make of it, and the whole in miniature."""

import asyncio
import io
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import orjson
import pytest
from rich.console import Console

from support.serving import eventually
from tempo_bench.routers.backend import Answers, stream_tag
from tempo_bench.routers.failure_rows import Episode, row_of, table_of
from tempo_bench.routers.failures import run_failures
from tempo_bench.routers.faulty import FIRST_S, Faulty, Mood, Patient
from tempo_bench.routers.open_loop import Clients, End, Seen, end_of

ASK = {"model": "m", "messages": [{"role": "user", "content": "Hello."}]}
STREAM = {"model": "m", "messages": [{"role": "user", "content": stream_tag(3, 5)}], "stream": True}


@asynccontextmanager
async def faulty():
    """A client of a stand-in that can be made to fail."""
    answers, patient = Answers("m"), Patient()
    server = await asyncio.get_running_loop().create_server(lambda: Faulty(answers, patient), "127.0.0.1", 0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        yield client
    server.close()


async def turn(client, **mood):
    async with client.post("/mood", data=msgspec.json.encode(Mood(**mood))) as answer:
        assert answer.status == 204


async def ask(client, body=ASK):
    """Status, seconds, and the body."""
    clock = asyncio.get_running_loop().time
    began_s = clock()
    async with client.post("/v1/chat/completions", json=body) as answer:
        text = await answer.read()
    return answer.status, clock() - began_s, text


async def test_a_stand_in_takes_its_time_and_ten_times_as_much_when_it_is_slow():
    async with faulty() as client:
        _, usual_s, whole = await ask(client)
        assert orjson.loads(whole)["choices"]
        assert usual_s >= FIRST_S
        await turn(client, slow=10.0)
        status, slow_s, stream = await ask(client, STREAM)
        assert (status, stream[-14:]) == (200, b"data: [DONE]\n\n")
        assert slow_s >= 10 * (FIRST_S + 0.015)


async def test_it_answers_the_status_it_is_told_to_and_well_again_once_it_is_healed():
    async with faulty() as client:
        await turn(client, status=500)
        assert (await ask(client))[0] == 500
        await turn(client)
        assert (await ask(client))[0] == 200


async def test_one_that_is_mute_says_that_it_is_well_and_answers_in_the_end():
    async with faulty() as client:
        await turn(client, mute=True)
        asked = asyncio.create_task(ask(client))
        async with client.get("/readyz") as answer:
            assert (await answer.json())["ready"]
        assert not asked.done()
        await turn(client)
        assert (await asked)[0] == 200


WHOLE_STREAM = b'data: {"content"}\n\n' * 9 + b'data: {"content" "stop"}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(
    ("status", "stream", "received", "end"),
    [
        (200, True, WHOLE_STREAM, End.WHOLE),
        (200, True, WHOLE_STREAM[19:], End.TRUNCATED),
        (200, True, WHOLE_STREAM[:-14], End.TRUNCATED),
        (200, True, b'data: {"content"}\n\ndata: {"error": {}}\n\ndata: [DONE]\n\n', End.BROKEN),
        (503, True, b'{"error": {}}', End.REFUSED),
        (200, False, b'{"choices": [{"message": {"content": "x"}}]}', End.WHOLE),
        (200, False, b'{"choices": []}', End.BROKEN),
    ],
)
def test_how_an_answer_ended_is_told_by_what_came_of_it(status, stream, received, end):
    assert end_of(Seen(0.0, stream, status=status), received) is end


async def test_a_client_that_is_refused_or_cut_off_says_which():
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def cut(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{")
        writer.close()

    for server, end in ((refuse, End.REFUSED), (cut, End.BROKEN)):
        async with await asyncio.start_server(server, "127.0.0.1", 0) as running:
            clients = Clients(f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}", "m")
            async with clients.sending():
                await eventually(lambda clients=clients: clients.seen)
        assert {seen.end for seen in clients.seen} == {end}


def seen(sent_s, ended_s, end=End.WHOLE, replica="r1", first_s=0.1):
    return Seen(sent_s, stream=True, replica=replica, end=end, first_s=first_s, ended_s=ended_s, silence_s=0.1)


def test_a_row_counts_what_ended_while_it_lasted_and_times_what_was_sent_while_it_was_ill():
    episode = Episode("slow", "r1", struck_s=10.0, healed_s=20.0, out_s=11.5, retries=3.0, until_s=30.0)
    all_seen = [
        seen(9.0, 9.5, End.REFUSED),
        seen(9.9, 10.5, End.BROKEN),
        seen(11.0, 12.0, first_s=0.3),
        seen(12.0, 13.0, replica="r2"),
        seen(19.0, 90.0, End.HUNG, first_s=None),
        seen(25.0, 26.0),
        seen(29.0, 31.0, End.REFUSED),
    ]
    episode.back_s = episode.first_good(all_seen)
    row = row_of(episode, all_seen)
    assert (row["requests"], row["refused"], row["broken"], row["truncated"], row["hung"]) == (5, 0, 1, 0, 1)
    assert (row["detected_s"], row["recovered_s"], row["retries"]) == (1.5, 5.1, 3)
    assert (row["share"], row["first_p50_ms"]) == (pytest.approx(2 / 3, abs=0.01), 200.0)
    console = Console(width=200, file=io.StringIO())
    console.print(table_of([row]))
    assert "slow" in console.file.getvalue()


def test_replicas_that_fail_for_real_leave_no_client_without_a_word(tmp_path):
    console = Console(width=160, file=io.StringIO())
    assert run_failures(tmp_path, 0.1, console, ["killed", "500"]), console.file.getvalue()
    rows = orjson.loads((tmp_path / "failures.json").read_bytes())
    assert [row["fault"] for row in rows] == ["none", "killed", "500"]
    assert all(row["requests"] for row in rows)
    assert all(row["recovered_s"] is not None for row in rows[1:])
