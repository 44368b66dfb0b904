"""Graphs in a file."""

import sqlite3
from contextlib import closing

import pytest

from support.history import record
from tempo_core.graphs import Record
from tempo_sidecar.history import HistoryError, open_store
from tempo_sidecar.history.sqlite_store import SqliteStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pool" / "history.sqlite"


def execute(path, statement, *values):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


async def test_what_is_saved_is_loaded_after_a_restart_the_highest_rank_first(path):
    await SqliteStore(path).save([record(1), record(3), record(2)])
    assert await SqliteStore(path).load() == ([record(3), record(2), record(1)], 0)


async def test_a_store_that_nobody_wrote_to_is_empty(path):
    assert await open_store(str(path), "chat").load() == ([], 0)


async def test_a_graph_s_rank_only_rises(path):
    store = SqliteStore(path)
    for rank in (5.0, 7.0, 6.0):
        await store.save([record(1, rank)])
    assert (await store.load()).records == [record(1, 7.0)]


async def test_the_same_graph_of_two_classes_is_two(path):
    store = SqliteStore(path)
    both = [record(1, 2.0, "agent"), record(1, 1.0, "research")]
    await store.save(both)
    assert (await store.load()).records == both


async def test_beyond_the_bound_the_lowest_ranks_go(path):
    store = SqliteStore(path, max_records=3)
    await store.save([record(number) for number in range(5)])
    await store.save([record(5, rank=2.5)])
    assert [kept.rank for kept in (await store.load()).records] == [4.0, 3.0, 2.5]


async def test_rows_that_are_no_records_are_skipped_and_counted(path):
    store = SqliteStore(path)
    await store.save([record(1)])
    for row in (("", b"g", 1.0), ("x" * 300, b"g", 1.0), ("agent", b"g" * 300, 1.0), ("agent", "text", 1.0)):
        execute(path, "INSERT INTO tempo_graphs VALUES (?, ?, ?)", *row)
    execute(path, "INSERT INTO tempo_graphs VALUES (x'00', x'00', 'word')")
    assert await store.load() == ([record(1)], 5)


async def test_a_file_of_another_schema_begins_anew(path):
    store = SqliteStore(path)
    await store.save([record(1)])
    execute(path, "PRAGMA user_version = 9")
    assert await store.load() == ([], 0)
    await store.save([record(2)])
    assert (await store.load()).records == [record(2)]


async def test_a_file_that_is_no_database_is_moved_aside_and_the_next_call_begins_anew(path):
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to be looked at" * 50)
    store = SqliteStore(path)
    with pytest.raises(HistoryError, match="not a database"):
        await store.load()
    assert path.with_name("history.sqlite.unreadable").exists()
    assert await store.load() == ([], 0)


async def test_a_path_that_can_t_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HistoryError, match="file"):
        await SqliteStore(tmp_path / "file" / "history.sqlite").load()


async def test_a_file_that_another_process_holds_is_an_error_for_now(path):
    store = SqliteStore(path, timeout_s=10.0)
    await store.save([record(1)])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(HistoryError, match="locked"):
            await store.save([record(2)])
        assert (await store.load()).records == [record(1)]  # readers do not wait for a writer
    await store.save([record(2)])


async def test_a_call_does_not_outlast_its_timeout(path):
    with pytest.raises(HistoryError, match="within 0 s"):
        await SqliteStore(path, timeout_s=0.0).load()


async def test_nothing_that_was_read_is_executed(path):
    store = SqliteStore(path)
    hostile = Record("'); DROP TABLE tempo_graphs; --", record(1).graph, 1.0)
    await store.save([hostile])
    assert (await store.load()).records == [hostile]
