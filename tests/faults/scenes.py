"""What may not be broken by one failing call: a batch close, an activation, a configuration, migrations, a contact.

Each scene has a template that its folder is copied from, a function that plays it, and a look at the folder afterwards
by the same code without any fault: whatever was told is there once, and what was not is there wholly or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import structlog

from edge.clock import Clock
from edge.config import ClassroomSettings, EdgeConfig, LinkSettings
from edge.daemon import Edge
from edge.installer import Installer
from edge.recorder import Recorder
from protocol import batch
from protocol.cose import SigningKey, digest
from protocol.documents import Config, parse_document
from protocol.messages import decode_payload, unseal
from protocol.numbers import DocumentKind, ParcelKind
from protocol.pack import encode_pack, wanted_files
from protocol.schema import Channel, Schema
from protocol.trust import version_name
from store.database import Database, open_database
from store.documents import Documents
from store.fleet.fleet import FleetStore, migrate
from store.parcels import ParcelQueue
from store.schema import STATE
from store.settings import Settings
from store.writer import Writer
from tests.faults.inject import stage
from tests.gateway.fleets import NOW_S, Signers
from tests.powercut.nursery import Tell
from tests.powercut.works import edition

TRUCK = "ke-arrow"
SHARE_BYTES = 8 << 20
_KEY = SigningKey(b"k" * 32)
_SCHEMA = Schema((Channel("n", "", 1, 0, 0),), period_s=60)
_ROWS_BEFORE, _ROWS_MORE = 5, 4
_SETTINGS = 40


class Scene:
    """One thing that may be interrupted anywhere."""

    function: str
    """`module:function`, which plays it with what `arguments` gives."""

    within_s = 60.0

    def prepare(self, folder: Path) -> None:
        """Make the template."""
        raise NotImplementedError

    def arguments(self, template: Path) -> list[Any]:
        """Set the scene: a fresh copy of the template, as a rule."""
        folder = template.with_name(template.name + ".run")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, folder, symlinks=True)
        return [str(folder)]

    def check(self, folder: Path, told: list[list[Any]]) -> list[str]:
        """Look at the folder afterwards; return what is wrong."""
        raise NotImplementedError

    def close(self) -> None:
        """End what `prepare` started."""


def be_quiet() -> None:
    """Write no log: a call that fails there is not what is looked at."""

    def drop(*_: Any) -> Any:
        raise structlog.DropEvent

    structlog.configure(processors=[drop])


# -- a batch is closed --------------------------------------------------------------------------------------------


async def _with_recorder(folder: Path) -> tuple[Recorder, Writer, Database]:
    database = open_database(folder / "state.db", schema=STATE, share_bytes=SHARE_BYTES)
    queue, writer = ParcelQueue(database, TRUCK), Writer(database)
    writer.start()

    async def on_parcel() -> None:
        return

    clock = Clock(boot=7, floor_s=0, offset_s=NOW_S - 100.0, monotonic=lambda: 100.0)
    recorder = Recorder(
        truck=TRUCK,
        key=_KEY,
        database=database,
        queue=queue,
        writer=writer,
        clock=clock,
        batch_age_s=3600,
        on_parcel=on_parcel,
    )
    await recorder.recover()
    await recorder.open_series("solar", _SCHEMA)
    return recorder, writer, database


def play_batch(tell: Tell, folder: str) -> None:
    """Take rows, close their batch, take more."""
    be_quiet()
    stage(tell)

    async def work() -> None:
        recorder, writer, _ = await _with_recorder(Path(folder))
        for number in range(_ROWS_BEFORE, _ROWS_BEFORE + _ROWS_MORE):
            if number == _ROWS_BEFORE + 2:
                await recorder.close_all()
            await recorder.on_row("solar", 60.0 * number, (number,))
            tell("row", number)
        await writer.close()
        tell("done")

    asyncio.run(work())


class BatchScene(Scene):
    """Every row that was taken is in a parcel or still open, once."""

    function = "tests.faults.scenes:play_batch"

    def prepare(self, folder: Path) -> None:
        async def work() -> None:
            recorder, writer, database = await _with_recorder(folder)
            for number in range(_ROWS_BEFORE):
                await recorder.on_row("solar", 60.0 * number, (number,))
            await writer.close()
            database.crash()

        asyncio.run(work())

    def check(self, folder: Path, told: list[list[Any]]) -> list[str]:
        database = open_database(folder / "state.db", schema=STATE, share_bytes=SHARE_BYTES)
        try:
            found = Counter(number for (number,) in _rows(database))
        finally:
            database.crash()
        taken = [*range(_ROWS_BEFORE), *(words[1] for words in told if words[0] == "row")]
        wrong = [f"row {number} was taken and is gone" for number in taken if not found[number]]
        return wrong + [f"row {number} is there {count} times" for number, count in found.items() if count > 1]


def _rows(database: Database) -> list[tuple[int | None, ...]]:
    from store.openrows import OpenRows

    opened = OpenRows(database)
    rows = [row.cells for number in opened.schemas() for row in opened.of(number)]
    for (sealed,) in database.rows("SELECT sealed FROM parcels ORDER BY id"):
        parcel = unseal(sealed)
        if parcel.kind is ParcelKind.BATCH:
            rows += [cells for _, cells in batch.decode(_SCHEMA, decode_payload(parcel).body)]
    return rows


# -- a bundle is activated ----------------------------------------------------------------------------------------


def play_activation(tell: Tell, folder: str) -> None:
    """Install the second edition beside the first and make it the active one."""
    be_quiet()
    stage(tell)
    _bring(Path(folder), 2)
    tell("active", 2)
    tell("done")


def _bring(folder: Path, number: int) -> None:
    installer = Installer(folder / "content", bytes_max=64 << 20)
    installer.clean()
    files, manifest, signed = edition(number)
    contents = {digest(data): data for data in files.values()}
    pack = folder / "a.pack"
    pack.write_bytes(b"".join(encode_pack(contents[each.digest] for each in wanted_files(manifest, ()))))
    installer.install(manifest, signed, pack, assumed=())
    installer.activate("maths", digest(signed))


class ActivationScene(Scene):
    """The active bundle is the old one or the new one, whole; another try brings the new one."""

    function = "tests.faults.scenes:play_activation"

    def prepare(self, folder: Path) -> None:
        _bring(folder, 1)

    def check(self, folder: Path, told: list[list[Any]]) -> list[str]:
        wrong = []
        for again in (False, True):
            if again:
                _bring(folder, 2)
            installer = Installer(folder / "content", bytes_max=64 << 20)
            active = installer.active("maths")
            number = None if active is None else active.manifest.version
            must_be_new = again or ["active", 2] in told
            if number not in ((2,) if must_be_new else (1, 2)):
                wrong.append(f"edition {number} is active")
            damaged = [path for path in installer.scrub() if active and active.path.name in path]
            wrong += [f"{path} is not what was signed" for path in damaged]
        return wrong


# -- a configuration is applied -----------------------------------------------------------------------------------


def edge_config(gateways: tuple[str, ...] = ("127.0.0.1:9",)) -> EdgeConfig:
    """Return the file of a truck that listens on any port of the loopback."""
    link = LinkSettings(name="lte", gateways=gateways, price_per_mb=0.01)
    return EdgeConfig(
        link=(link,),
        classroom=ClassroomSettings(listen="127.0.0.1:0"),
        state_mb_max=16,
        batch_age_s=3_600,
        patience_s=0,
        retry_s_max=1,
        collector=(),
    )


def signed_config(version: int) -> tuple[bytes, bytes, Config]:
    """Return the digest, the signed bytes and the document of a configuration."""
    signed = Signers().config(version, batch_age_s=1_000 + version, links=())
    return digest(signed), signed, parse_document(signed, Config)[0]


def trust_config(database: Database, version: int) -> tuple[bytes, Config]:
    """Keep a configuration as the one that is wanted."""
    found, signed, document = signed_config(version)
    Documents(database).put_trusted(DocumentKind.CONFIG, version_name(document), version, found, signed)
    return found, document


def play_config(tell: Tell, folder: str) -> None:
    """Start the daemon under configuration 1, and have it take configuration 2."""
    be_quiet()
    stage(tell)

    async def work() -> None:
        truck = Edge(edge_config(), Path(folder))
        await truck.start()
        try:
            wanted = await truck.writer.run(lambda: trust_config(truck.state, 2))
            tell("trusted", 2)
            await truck.configurator.want(*wanted)
            assert truck.recorder.batch_age_s == 1_002, truck.recorder.batch_age_s
            tell("applied", 2)
        finally:
            await truck.close()
        tell("done")

    asyncio.run(work())


class ConfigScene(Scene):
    """The next start applies the configuration that was trusted last, and has a receipt of it queued once."""

    function = "tests.faults.scenes:play_config"

    def prepare(self, folder: Path) -> None:
        join_by_hand(folder)
        with contextlib.closing(open_state(folder)) as database:
            trust_config(database, 1)

    def check(self, folder: Path, told: list[list[Any]]) -> list[str]:
        async def look() -> tuple[int | None, float]:
            truck = Edge(edge_config(), folder)
            await truck.start()
            try:
                return truck.configurator.applied_version, truck.recorder.batch_age_s
            finally:
                await truck.close()

        version, age_s = asyncio.run(look())
        must = (2,) if ["trusted", 2] in told else (1, 2)
        wrong = [] if version in must and age_s == 1_000 + version else [f"configuration {version} holds, {age_s} s"]
        with contextlib.closing(open_state(folder)) as database:
            receipts = [
                decode_payload(parcel)
                for (sealed,) in database.rows("SELECT sealed FROM parcels")
                if (parcel := unseal(sealed)).kind is ParcelKind.RECEIPT
            ]
        said = Counter((each.version, each.outcome.name) for each in receipts)
        wrong += [f"{count} receipts say {what}" for what, count in said.items() if count > 1 or what[1] != "APPLIED"]
        return wrong + ([] if said[version, "APPLIED"] else [f"no receipt for configuration {version}"])


def open_state(folder: Path) -> Database:
    return open_database(folder / "state.db", schema=STATE, share_bytes=16 << 20)


def join_by_hand(folder: Path) -> None:
    """Make a truck that has joined, without a gateway."""
    from edge.identity import Enrolment, make_keys, save_enrolment

    make_keys(folder / "identity")
    root = Signers().root_document()
    with contextlib.closing(open_state(folder)) as database:
        Documents(database).put_trusted(DocumentKind.ROOT, "", 1, digest(root), root)
    save_enrolment(folder / "identity", Enrolment(TRUCK, "kenya", ("127.0.0.1:9",), bytes(32), digest(root)))


# -- databases of the version before are migrated -----------------------------------------------------------------


def play_state_migration(tell: Tell, folder: str) -> None:
    """Open a state.db of the version before."""
    be_quiet()
    stage(tell)
    database = open_database(Path(folder) / "state.db", schema=STATE, share_bytes=SHARE_BYTES)
    tell("opened")
    database.close()
    tell("done")


class StateMigrationScene(Scene):
    """All that the old database held is in the new one."""

    function = "tests.faults.scenes:play_state_migration"

    def prepare(self, folder: Path) -> None:
        database = open_database(folder / "state.db", schema=STATE, share_bytes=SHARE_BYTES)
        for number in range(_SETTINGS):
            Settings(database).put_int(f"kept-{number}", number)
        database.sql.execute("DROP TABLE open_rows")
        database.sql.execute("DELETE FROM _sqlite_migrations WHERE name = 's002_open_rows'")
        database.close()

    def check(self, folder: Path, told: list[list[Any]]) -> list[str]:
        database = open_database(folder / "state.db", schema=STATE, share_bytes=SHARE_BYTES)
        try:
            settings = Settings(database)
            lost = [number for number in range(_SETTINGS) if settings.get_int(f"kept-{number}", -1) != number]
            wrong = [f"setting {number} is gone" for number in lost] + list(database.damage())
            return wrong if "open_rows" in database.tables() else [*wrong, "the migration is not done"]
        finally:
            database.crash()


def play_fleet_migration(tell: Tell, folder: str) -> None:
    """Bring the gateway's database to this version."""
    be_quiet()
    stage(tell)
    asyncio.run(migrate(f"sqlite:///{folder}/fleet.db"))
    tell("done")


class FleetMigrationScene(Scene):
    """The next start finds an empty database or a whole one, and makes it this version's."""

    function = "tests.faults.scenes:play_fleet_migration"

    def prepare(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)

    def check(self, folder: Path, told: list[list[Any]]) -> list[str]:
        async def look() -> None:
            url = f"sqlite:///{folder}/fleet.db"
            await migrate(url)
            fleet = await FleetStore.open(url)
            await fleet.summary()
            await fleet.close()

        asyncio.run(look())
        with contextlib.closing(sqlite3.connect(folder / "fleet.db")) as connection:
            return [line for (line,) in connection.execute("PRAGMA integrity_check(5)") if line != "ok"]


SCENES: dict[str, Scene] = {
    "batch": BatchScene(),
    "activation": ActivationScene(),
    "config": ConfigScene(),
    "migration": StateMigrationScene(),
    "gateway-migration": FleetMigrationScene(),
}
