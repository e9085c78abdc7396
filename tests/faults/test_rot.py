"""One flipped bit in a row of each table, or in the log: the next daemon heals itself and says so."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

from edge.daemon import Edge
from protocol.budget import Cap
from protocol.cose import digest
from protocol.messages import Event, decode_payload, unseal
from protocol.numbers import DocumentKind, Precedence
from store.errors import StoreFailedError
from store.links import open_links
from store.staging import Staging
from tests.faults.scenes import edge_config, join_by_hand, open_state, trust_config

_STATE, _LINKS = "state.db", "links.db"
_TABLES = {
    _STATE: (
        "bases",
        "documents",
        "epochs",
        "identity",
        "incidents",
        "open_rows",
        "outcomes",
        "parcels",
        "schemas",
        "settings",
        "staging_bits",
        "stagings",
        "summaries",
        "trusted",
    ),
    _LINKS: ("contexts", "identity", "incidents", "ledger_accounts", "ledger_costs", "ledger_entries", "settings"),
}


@asynccontextmanager
async def daemon(folder: Path) -> AsyncIterator[Edge]:
    truck = Edge(edge_config(), folder)
    await truck.start()
    try:
        yield truck
    finally:
        await truck.close()


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A truck's data folder with a row in every table."""
    folder = tmp_path_factory.mktemp("rot") / "data"
    join_by_hand(folder)

    async def live() -> None:
        with closing(open_state(folder)) as database:
            trust_config(database, 1)
        async with daemon(folder) as truck:
            await truck.recorder.event("before", Precedence.PRIORITY)
            await truck.recorder.record((("level", 1.5),), None)
            await truck.recorder.tick()

    asyncio.run(live())
    with closing(open_state(folder)) as database:
        data = b"x" * 5_000
        staging = Staging(database, folder / "staging", digest(data), len(data))
        staging.put(0, data[:1024])
        staging.close()
        database.insert("bases", {"epoch": b"e" * 8, "sequence": 1, "base_epoch": b"e" * 8, "base_sequence": 2})
        database.insert("summaries", {"epoch": b"e" * 8, "sequence": 1, "by_epoch": b"e" * 8, "by_sequence": 2})
    links = open_links(folder / _LINKS, {"lte": Cap(1_000_000)})
    links.contexts.put(
        "lte", gateway="g:1", master_secret=b"s" * 16, master_salt=b"", sender_id=b"\1", recipient_id=b"\2"
    )
    held = links.ledger.reserve("lte", Precedence.NORMAL, "batch", 500, period=202611)
    links.ledger.settle(held, sent_bytes=400, received_bytes=50)
    links.database.insert(
        "ledger_costs",
        {"period": 202611, "link": "lte", "precedence": 2, "cause": "batch", "billed": 450, "nano": 1},
    )
    links.database.insert("incidents", {"name": "before", "at_s": 1, "details": "{}", "reported": 1})
    links.close()
    return folder


@pytest.fixture
def folder(lived: Path, tmp_path: Path) -> Path:
    copied = tmp_path / "data"
    shutil.copytree(lived, copied, symlinks=True)
    return copied


def test_every_table_is_flipped(lived: Path) -> None:
    for name, tables in _TABLES.items():
        with closing(sqlite3.connect(lived / name)) as connection:
            found = connection.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '%sqlite_%'"
            )
            assert sorted(table for (table,) in found) == sorted(tables)


def flip(path: Path, table: str, where: str = "1") -> None:
    """Flip one bit of the newest row of a table, in the file."""
    with closing(sqlite3.connect(path)) as connection:
        query = f"SELECT row_hash FROM {table} WHERE {where} ORDER BY rowid DESC LIMIT 1"
        (row_hash,) = connection.execute(query).fetchone()
    data = bytearray(path.read_bytes())
    at = data.index(row_hash)
    data[at] ^= 1
    path.write_bytes(data)


async def told(truck: Edge) -> list[str]:
    """Return the names of the events that wait for the gateway."""
    await truck.recorder.tick()
    rows = await truck.writer.run(lambda: truck.state.rows("SELECT sealed FROM parcels WHERE kind = 2 AND state = 1"))
    events = [decode_payload(unseal(sealed)) for (sealed,) in rows]
    return [each.name for each in events if isinstance(each, Event)]


@pytest.mark.parametrize(("file", "table"), [(file, table) for file, tables in _TABLES.items() for table in tables])
async def test_a_flipped_bit_in_a_table_is_healed_and_told(file: str, table: str, folder: Path) -> None:
    flip(folder / file, table)
    async with daemon(folder) as truck:
        names = await told(truck)
        assert "store.damaged" in names
        assert table == "parcels" or "before" in names
        await truck.recorder.event("after", Precedence.PRIORITY)
        assert "after" in await told(truck)
        assert truck.state.check().damage == ()


async def test_a_root_that_rotted_away_is_brought_back_without_a_person(folder: Path) -> None:
    with closing(sqlite3.connect(folder / _STATE)) as connection:
        (before,) = connection.execute("SELECT signed FROM documents WHERE kind = 1").fetchone()
    flip(folder / _STATE, "documents", "kind = 1")
    flip(folder / _STATE, "trusted", "kind = 1")
    async with daemon(folder) as truck:
        assert "store.damaged" in await told(truck)
        held = truck.documents.current(DocumentKind.ROOT)
        assert held is not None
        assert held.signed == before


@pytest.mark.parametrize("file", [_STATE, _LINKS])
async def test_a_bit_flipped_in_the_log_costs_at_most_its_tail(file: str, folder: Path) -> None:
    async with daemon(folder) as truck:
        for number in range(20):
            await truck.recorder.event(f"n-{number}", Precedence.PRIORITY)
        copied = folder.with_name("cut")
        shutil.copytree(folder, copied, symlinks=True)
    log = copied / f"{file}-wal"
    data = bytearray(log.read_bytes())
    assert len(data) > 8_192
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    async with daemon(copied) as truck:
        names = await told(truck)
        # A log is believed up to its first bad frame: what was queued last may be gone, and a new epoch says so.
        assert "before" in names
        assert {"store.restored", "store.damaged", "store.recreated"} & set(names)
        await truck.recorder.event("after", Precedence.PRIORITY)
        assert "after" in await told(truck)
        assert truck.state.check().damage == truck.links_store.database.check().damage == ()


@pytest.mark.parametrize("file", [_STATE, _LINKS])
async def test_a_database_deleted_under_the_daemon_is_saved_by_it_and_told_by_the_next(
    file: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.spending._LEDGER_S", 0.05)
    truck = Edge(edge_config(), folder)
    await truck.start()
    work = asyncio.create_task(truck.run())
    for part in ("", "-wal", "-shm"):
        (folder / f"{file}{part}").unlink()
    with suppress(StoreFailedError):  # stored, and then found out
        await truck.recorder.event("accepted", Precedence.PRIORITY)
    with pytest.raises(ExceptionGroup, match="TaskGroup"):
        async with asyncio.timeout(60):
            await work
    await truck.close()
    async with daemon(folder) as again:
        names = await told(again)
        assert {"before", "accepted", "store.recreated", "store.salvaged"} <= set(names)
        assert names.count("accepted") == 1
