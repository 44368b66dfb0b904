"""Graphs in a Redis that several nodes share: a real one."""

import asyncio
import tempfile
from pathlib import Path

import pytest

from support.history import FAST, record, run_program
from support.redis import need_redis, redis_server
from support.serving import eventually
from tempo_core.graphs import PatternGraphs
from tempo_sidecar.history import HistoryError, HistoryKeeper, open_store

need_redis()

from redis.asyncio import Redis  # noqa: E402  # after the skip

from tempo_sidecar.history.redis_store import RedisStore  # noqa: E402


@pytest.fixture
def short_folder():
    with tempfile.TemporaryDirectory(prefix="tempo-") as folder:  # the path of a socket must be short
        yield Path(folder)


@pytest.fixture
async def server(short_folder):
    async with redis_server(short_folder) as running:
        yield running


@pytest.fixture
async def stores(server):
    """Makes stores, and closes them."""
    made = []

    def make(pool="chat", **options):
        made.append(RedisStore(server.url, pool, **options))
        return made[-1]

    yield make
    for store in made:
        await store.close()


async def test_what_one_node_saves_another_loads_the_highest_rank_first(stores):
    await stores().save([record(1), record(3), record(2)])
    assert await stores().load() == ([record(3), record(2), record(1)], 0)


async def test_of_two_nodes_that_save_the_same_graph_the_higher_rank_is_kept(stores):
    for rank in (5.0, 7.0, 6.0):
        await stores().save([record(1, rank)])
    assert (await stores().load()).records == [record(1, 7.0)]


async def test_pools_do_not_share_their_graphs(stores):
    await stores("chat").save([record(1)])
    assert (await stores("code").load()).records == []


async def test_beyond_the_bound_the_lowest_ranks_go(stores):
    store = stores(max_records=3)
    await store.save([])
    await store.save([record(number) for number in range(5)])
    await store.save([record(5, rank=2.5)])
    assert [kept.rank for kept in (await store.load()).records] == [4.0, 3.0, 2.5]


async def test_members_that_are_no_records_are_skipped_and_counted(server, stores):
    await stores().save([record(1)])
    async with Redis.from_url(server.url) as client:
        (key,) = await client.keys()
        await client.zadd(key, {b"garbage": 1.0, b"\x92\x01\x02": 2.0, b"\x92\xa0\xc4\x00": 3.0, b"\xc1": 4.0})
        assert 0 < await client.ttl(key) <= 30 * 86_400
    assert await stores().load() == ([record(1)], 4)


async def test_a_key_that_holds_something_else_is_an_error(server, stores):
    async with Redis.from_url(server.url) as client:
        await client.set("tempo:graphs:v1:chat", "mine")
    for use in (stores().load(), stores().save([record(1)])):
        with pytest.raises(HistoryError, match="WRONGTYPE"):
            await use


async def test_a_server_that_is_away_is_an_error_and_the_same_store_works_once_it_is_back(server, stores):
    store = stores()
    await store.save([record(1)])
    await server.stop()
    with pytest.raises(HistoryError, match="Redis"):
        await store.load()
    await server.start()
    assert await store.load() == ([], 0)


async def test_a_server_that_does_not_answer_is_an_error_after_the_timeout(short_folder):
    async def read_only(reader, writer):
        await reader.read(-1)
        writer.close()
        await writer.wait_closed()

    path = short_folder / "silent.sock"
    async with await asyncio.start_unix_server(read_only, path):
        store = RedisStore(f"unix://{path}", "chat", timeout_s=0.1)
        with pytest.raises(HistoryError, match="Redis"):
            await asyncio.wait_for(store.load(), 5.0)
        await store.close()


async def test_a_url_that_is_none_is_refused_at_once(server):
    assert isinstance(open_store(server.url, "chat"), RedisStore)
    with pytest.raises(ValueError, match="port"):
        open_store("redis://host:port", "chat")


async def test_a_keeper_goes_on_through_an_outage_and_writes_what_it_kept(server, stores):
    keeper = HistoryKeeper(PatternGraphs(), stores(), pacing=FAST)
    async with keeper.running(), asyncio.timeout(15):
        run_program(keeper, "a", [100])
        await eventually(lambda: keeper.counts.written == 1)
        await server.stop()
        run_program(keeper, "b", [100, 900])
        await eventually(lambda: keeper.counts.failures >= 2)
        await server.start()
        await eventually(lambda: keeper.counts.written == 2)
    assert len((await stores().load()).records) == 1
