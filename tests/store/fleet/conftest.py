"""The same store on two databases: every test that takes `fleet` runs on SQLite and on a PostgreSQL of our own.

The PostgreSQL server is started once a session, on a free port of the loopback, without fsync, in a folder that is
removed afterwards; tests share one migrated database, emptied before each.
"""

import asyncio
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from protocol.numbers import Precedence
from store.fleet.evidence import BatchPart, IngestItem, Part, SchemaPart
from store.fleet.fleet import FleetStore, migrate
from store.fleet.records import TruckRecord
from store.fleet.tables import metadata

NOW_MS = 1_780_000_000_000
SCHEMA = b"\x85 a schema, as far as the store can tell"
SCHEMA_DIGEST = hashlib.sha256(SCHEMA).digest()


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end on another thread: a session's fixture may be asked for while a test's loop is running."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


class Server:
    """A PostgreSQL that serves the tests."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._names = (f"fleet{number}" for number in count())
        _run(self._prepare())

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    async def _prepare(self) -> None:
        await self._administer("CREATE DATABASE empty_one")
        await self._administer("CREATE DATABASE migrated")
        await migrate(self.url("migrated"))

    async def emptied(self) -> str:
        """Return the migrated database without any row."""
        connection = await asyncpg.connect(self.url("migrated"))
        await connection.execute("; ".join(f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables)))
        await connection.close()
        return self.url("migrated")

    async def new(self, template: str) -> str:
        name = next(self._names)
        await self._administer(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    async def _administer(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url("postgres"))
        await connection.execute(statement)
        await connection.close()


def _as_postgres(command: list[str]) -> None:
    """PostgreSQL refuses to run as root."""
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run([*prefix, *command], check=True, capture_output=True, cwd="/")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL here (Debian: apt-get install postgresql)")
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        pytest.skip("PostgreSQL does not run as root, and there is no runuser")
    programs = found[-1].parent
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Not pytest's own temporary folder: its parents may not be entered by the postgres user.
    folder = Path(tempfile.mkdtemp(prefix="digitruck-pg-", dir="/tmp"))
    data = folder / "data"
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        _as_postgres([str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync"])
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
        control = [str(programs / "pg_ctl"), "-D", str(data), "-l", str(folder / "log")]
        _as_postgres([*control, "-o", options, "-w", "start"])
        try:
            yield Server(port)
        finally:
            _as_postgres([*control, "-m", "immediate", "-w", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fleet") / "migrated.db"
    _run(migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """The database that the test runs on; a test that takes it runs once on each."""
    return str(request.param)


@pytest.fixture
async def empty_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any table."""
    if backend == "sqlite":
        return f"sqlite:///{tmp_path}/fleet.db"
    server: Server = request.getfixturevalue("postgres")
    return await server.new("empty_one")


@pytest.fixture
async def fleet_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated database without any row."""
    if backend == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "fleet.db")
        return f"sqlite:///{tmp_path}/fleet.db"
    server: Server = request.getfixturevalue("postgres")
    return await server.emptied()


@pytest.fixture
async def own_url(backend: str, request: pytest.FixtureRequest, fleet_url: str) -> str:
    """A migrated database that the test may spoil."""
    return fleet_url if backend == "sqlite" else await request.getfixturevalue("postgres").new("migrated")


@pytest.fixture
async def fleet(fleet_url: str) -> AsyncIterator[FleetStore]:
    store = await FleetStore.open(fleet_url)
    yield store
    await store.close()


@pytest.fixture
async def other(fleet_url: str, backend: str) -> AsyncIterator[FleetStore]:
    """A second gateway process's store over the same database, as far as the database can tell."""
    store = await FleetStore.open(fleet_url)
    yield store
    await store.close()


Enrol = Callable[..., Awaitable[TruckRecord]]


@pytest.fixture
def enrol(fleet: FleetStore) -> Enrol:
    """Enrol a truck with keys of its own; `board` numbers the sets of keys that one truck has over time."""

    async def _enrol(
        name: str = "ke-arrow", *, group: str = "kenya", board: int = 1, now_ms: int = NOW_MS
    ) -> TruckRecord:
        def key(use: str) -> bytes:
            return hashlib.sha256(f"{name} {board} {use}".encode()).digest()

        secret = key("secret")
        await fleet.create_enrolment(name, group, secret, now_ms + 1_000, "ada", now_ms=now_ms)
        return await fleet.redeem_enrolment(secret, name, key("sign"), key("edhoc"), key("kid")[:4], now_ms)

    return _enrol


Make = Callable[..., IngestItem]


@pytest.fixture
def item() -> Make:
    """Make an item for ingest: by default a batch with wall time, of the schema that `schema_item` registers."""

    def _item(
        sequence: int,
        part: Part | None = None,
        *,
        truck: str = "ke-arrow",
        epoch: int = 7,
        received_ms: int = NOW_MS,
        link: str = "sat",
    ) -> IngestItem:
        if part is None:
            first_ms = NOW_MS + sequence * 60_000
            part = BatchPart(1, SCHEMA_DIGEST, None, first_ms, first_ms + 59_000, 60)
        sealed = hashlib.sha256(f"{truck} {epoch} {sequence}".encode()).digest() * 4
        return IngestItem(truck, link, epoch, sequence, Precedence.NORMAL, sealed, received_ms, part)

    return _item


@pytest.fixture
def schema_item(item: Make) -> IngestItem:
    """The first parcel of epoch 7: schema 1."""
    return item(1, SchemaPart(1, SCHEMA_DIGEST, SCHEMA))
