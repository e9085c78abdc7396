"""The writer thread: results after COMMIT, groups, savepoints, unknown commits, a hanging disk."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from store import incidents
from store.database import Database, open_reader
from store.errors import CommitUnknownError, StoreFailedError
from store.openrows import OpenRow, OpenRows
from store.settings import Settings
from store.writer import Writer


class Refusing:
    """A connection whose COMMIT fails, before or after it took effect."""

    def __init__(self, connection: sqlite3.Connection, after: bool) -> None:
        self.connection = connection
        self.after = after

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        if sql == "COMMIT":
            if self.after:
                self.connection.execute(sql)
            raise sqlite3.OperationalError("disk I/O error")
        return self.connection.execute(sql, *parameters)

    def __getattr__(self, name: str) -> object:
        return getattr(self.connection, name)


@pytest.fixture
async def writer(database):
    writer = Writer(database)
    writer.start()
    yield writer
    await writer.close()


async def test_a_result_is_durable_when_it_is_handed_out(writer, database) -> None:
    await writer.run(lambda: Settings(database).put("a", b"1"))
    reader = open_reader(database.path)
    assert reader.execute("SELECT value FROM settings WHERE name = 'a'").fetchone() == (b"1",)
    reader.close()


async def test_what_waits_shares_one_commit_and_one_that_fails_undoes_only_itself(writer, database) -> None:
    settings = Settings(database)
    gate = threading.Event()
    blocked = asyncio.create_task(writer.run(lambda: gate.wait(5)))
    await asyncio.sleep(0.02)

    def fail() -> None:
        settings.put("bad", b"1")
        raise KeyError("mine")

    jobs = [asyncio.create_task(writer.run(lambda n=n: settings.put(f"n{n}", b"1"))) for n in range(20)]
    failing = asyncio.create_task(writer.run(fail))
    await asyncio.sleep(0)
    before = writer.commits
    gate.set()
    await asyncio.gather(blocked, *jobs)
    with pytest.raises(KeyError, match="mine"):
        await failing
    assert writer.commits == before + 2
    assert settings.get("bad") is None
    assert settings.get("n19") == b"1"


@pytest.mark.parametrize("after", [False, True])
async def test_a_commit_that_fails_is_unknown_to_all_and_the_next_works(writer, database, after) -> None:
    settings = Settings(database)
    database.sql.conn = Refusing(database.sql.conn, after)
    with pytest.raises(CommitUnknownError):
        await writer.run(lambda: settings.put("a", b"1"))
    await writer.run(lambda: settings.put("b", b"2"))
    assert await writer.run(lambda: (settings.get("a") is not None, settings.get("b"))) == (after, b"2")
    assert database.check().synchronous_full


async def test_a_transaction_destroyed_from_inside_is_done_again_without_the_one_that_did_it(writer, database) -> None:
    settings = Settings(database)

    def destroy() -> None:
        database.sql.conn.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    gate = threading.Event()
    blocked = asyncio.create_task(writer.run(lambda: gate.wait(5)))
    await asyncio.sleep(0.02)
    first = asyncio.create_task(writer.run(lambda: settings.count("times")))
    bad = asyncio.create_task(writer.run(destroy))
    last = asyncio.create_task(writer.run(lambda: settings.count("times")))
    await asyncio.sleep(0)
    gate.set()
    assert (await blocked, await first, await last) == (True, 1, 2)
    with pytest.raises(sqlite3.OperationalError):
        await bad
    assert settings.get_int("times") == 2


async def test_a_database_that_cannot_be_opened_again_fails_every_caller(writer, database, monkeypatch) -> None:
    def broken() -> None:
        raise StoreFailedError("gone")

    monkeypatch.setattr(database, "reopen", broken)
    real = database.sql.conn
    database.sql.conn = Refusing(real, False)
    with pytest.raises(CommitUnknownError):
        await writer.run(lambda: None)
    with pytest.raises(StoreFailedError):
        await writer.run(lambda: None)
    database.sql.conn = real


async def test_a_cancelled_caller_leaves_its_work_and_the_others_alone(writer, database) -> None:
    settings = Settings(database)
    gate = threading.Event()
    blocked = asyncio.create_task(writer.run(lambda: gate.wait(5)))
    cancelled = asyncio.create_task(writer.run(lambda: settings.put("a", b"1")))
    await asyncio.sleep(0.02)
    cancelled.cancel()
    gate.set()
    await blocked
    assert await writer.run(lambda: settings.get("a")) == b"1"


async def test_closing_does_what_is_queued_and_then_refuses(database) -> None:
    writer = Writer(database)
    with pytest.raises(StoreFailedError):
        await writer.run(lambda: None)
    writer.start()
    jobs = [asyncio.create_task(writer.run(lambda: Settings(database).count("times"))) for _ in range(200)]
    await asyncio.sleep(0)
    await writer.close()
    assert max(await asyncio.gather(*jobs)) == 200
    with pytest.raises(StoreFailedError):
        await writer.run(lambda: None)


@pytest.mark.parametrize("gone", [("",), ("", "-wal", "-shm"), ("-wal",)])
async def test_a_file_that_is_deleted_underneath_loses_nothing_and_stops_the_writer(
    opened: Callable[..., Database], tmp_path: Path, gone: tuple[str, ...]
) -> None:
    database = opened()
    OpenRows(database).add(OpenRow(1, None, 5, (1,)))
    epoch = database.epoch
    writer = Writer(database)
    writer.start()
    for part in gone:
        (tmp_path / f"state.db{part}").unlink()
    settings = Settings(database)
    await writer.run(lambda: settings.put("accepted", b"after it was deleted"))
    with pytest.raises(StoreFailedError, match="deleted"):
        await writer.run(lambda: settings.put("refused", b"1"))
    await writer.close()
    database.close()
    again = opened()
    assert Settings(again).get("accepted") == b"after it was deleted"
    assert Settings(again).get("refused") is None
    assert OpenRows(again).count(1) == 1
    assert again.check().damage == ()
    assert (again.epoch != epoch) == ("" in gone)
    told = {each.name for each in incidents.unreported(again, 100)}
    assert ({"store.recreated", "store.salvaged"} <= told) == ("" in gone)


async def test_another_file_in_its_place_is_not_mixed_in(opened: Callable[..., Database], tmp_path: Path) -> None:
    database = opened()
    OpenRows(database).add(OpenRow(1, None, 5, (1,)))
    database.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    (tmp_path / "older").write_bytes((tmp_path / "state.db").read_bytes())
    writer = Writer(database)
    writer.start()
    (tmp_path / "older").rename(tmp_path / "state.db")
    await writer.run(lambda: Settings(database).put("accepted", b"1"))
    await writer.close()
    database.close()
    again = opened()
    assert (Settings(again).get("accepted"), OpenRows(again).count(1)) == (b"1", 1)
    assert (tmp_path / "state.db.replaced").exists()


async def test_what_a_full_disk_refused_is_told_once_it_takes_everything_again(
    opened: Callable[..., Database], tmp_path: Path
) -> None:
    database = opened()
    writer = Writer(database)
    writer.start()
    settings = Settings(database)

    def refuse() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    for _ in range(3):
        with pytest.raises(sqlite3.OperationalError, match="full"):
            await writer.run(refuse)
    for _ in range(2):
        await writer.run(lambda: settings.put("after", b"1"))
    await writer.close()
    told = [each.values for each in incidents.unreported(database, 100) if each.name == "store.refused"]
    assert told == [{"writes": 3, "seconds": 0}]
