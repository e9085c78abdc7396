"""What lives under the power cuts: the store's and the edge's own objects, as busy as can be, telling each promise.

Each work is a pair: a function that runs in a process of its own until it is killed, and a class that remembers what
was told before the cuts and looks after each whether it is there. The whole daemons are in `daemons.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import sqlite3
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from edge.installer import Installer
from protocol.budget import Cap
from protocol.cose import SigningKey, digest
from protocol.documents import Manifest, parse_document
from protocol.messages import Parcel, seal, unseal
from protocol.numbers import PIECE_BYTES, ParcelKind, Precedence
from protocol.pack import encode_pack, wanted_files
from store.database import Database, open_database
from store.fleet.evidence import EventPart, IngestItem
from store.fleet.fleet import FleetStore, migrate
from store.fleet.records import ContextRecord
from store.links import open_links
from store.parcels import ParcelQueue
from store.schema import STATE
from store.staging import Staging
from store.writer import Writer
from tests.gateway.fleets import Signers, add_truck
from tests.powercut.nursery import Tell

TRUCK = "ke-arrow"
_KEY = SigningKey(b"k" * 32)
_SHARE_BYTES = 48 << 20
_PRODUCERS = 3
_CAP_BYTES = 40 << 20
_PERIOD = 2026 * 100 + 11
_EDITIONS = 12
_DOWNLOAD_BYTES = 200_000


class Work(Protocol):
    """One kind of work on one disk, over any number of cuts."""

    function: str
    """`module:function`, which runs it, given the disk, a seed and `options`."""

    options: tuple[str, ...]

    def heard(self, words: list[Any], *, late: bool = False) -> None:
        """Remember a promise that was read before the cut, or `late`: one that may hold or not."""

    def check(self, folder: Path) -> list[str]:
        """Look at the disk after the cut; return what is wrong, nothing if all is well."""


# -- the truck's queue --------------------------------------------------------------------------------------------


def run_queue(tell: Tell, folder: str, seed: int, synchronous: str) -> None:
    """Queue parcels and open rows from several tasks at once, as fast as the disk commits them."""
    database = open_database(Path(folder) / "state.db", schema=STATE, share_bytes=_SHARE_BYTES)
    database.sql.execute(f"PRAGMA synchronous = {synchronous}")
    asyncio.run(_queue_on(tell, database, random.Random(seed)))


async def _queue_on(tell: Tell, database: Database, chance: random.Random) -> None:
    queue, writer = ParcelQueue(database, TRUCK), Writer(database)
    writer.start()

    def add(payload: bytes) -> Parcel:
        return queue.add(ParcelKind.EVENT, Precedence.NORMAL, payload, lambda each: seal(_KEY, each, TRUCK), 0)

    async def produce() -> None:
        while True:
            payload = chance.randbytes(chance.randrange(20, 600))
            parcel = await writer.run(partial(add, payload))
            tell("parcel", parcel.epoch, parcel.sequence, hashlib.sha256(payload).hexdigest()[:16])

    await asyncio.gather(*(produce() for _ in range(_PRODUCERS)))


class QueueWork:
    """Acknowledged parcels are there, and no number means two things."""

    function = "tests.powercut.works:run_queue"

    def __init__(self, synchronous: str = "FULL") -> None:
        self.options: tuple[str, ...] = (synchronous,)
        self._told: dict[tuple[int, int], str] = {}

    def heard(self, words: list[Any], *, late: bool = False) -> None:
        if late:
            return
        _, epoch, sequence, content = words
        known = self._told.setdefault((epoch, sequence), content)
        if known != content:
            raise AssertionError(f"sequence {sequence} of epoch {epoch:x} was given twice")

    def check(self, folder: Path) -> list[str]:
        database = open_database(folder / "state.db", schema=STATE, share_bytes=_SHARE_BYTES)
        try:
            wrong = []
            if database.restored or database.recreated:
                wrong.append("the queue's database was not known again")
            held = {
                (int.from_bytes(epoch, "big"), sequence): hashlib.sha256(unseal(sealed).payload).hexdigest()[:16]
                for epoch, sequence, sealed in database.rows("SELECT epoch, sequence, sealed FROM parcels")
            }
            for key, content in self._told.items():
                if held.get(key) != content:
                    wrong.append(f"the parcel {key[1]}, which was acknowledged, is {held.get(key, 'gone')}")
            return wrong
        finally:
            database.crash()


# -- what must be durable before a datagram leaves ----------------------------------------------------------------


def run_links(tell: Tell, folder: str, seed: int) -> None:
    """Reserve sender sequence numbers and money, use them, now and then make a new context."""
    chance = random.Random(seed)
    links = open_links(Path(folder) / "links.db", {"lte": Cap(_CAP_BYTES)}, slice_bytes=4_096)
    context = links.contexts.get("lte")
    while True:
        if context is None or chance.random() < 0.02:
            secret = chance.randbytes(16)
            context = links.contexts.put(
                "lte", gateway="g:1", master_secret=secret, master_salt=b"", sender_id=b"\x01", recipient_id=b"\x02"
            )
        below = context.sequence_reserved
        for _ in range(chance.randrange(1, 6)):
            below += 32
            links.contexts.reserve(context.id, below)
            tell("numbers", context.master_secret.hex(), below)
        context = links.contexts.get("lte")
        for _ in range(chance.randrange(1, 12)):
            size = chance.randrange(60, 1_300)
            held = links.ledger.reserve("lte", Precedence.NORMAL, "batch", size, period=_PERIOD)
            tell("spent", size)
            links.ledger.settle(held, sent_bytes=size, received_bytes=0)


class LinksWork:
    """Numbers of a context that were used are never free again, and what was spent stays spent, within the cap."""

    function = "tests.powercut.works:run_links"
    options: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._below: dict[str, int] = {}
        self._spent_bytes = 0

    def heard(self, words: list[Any], *, late: bool = False) -> None:
        if late:
            return
        if words[0] == "spent":
            self._spent_bytes += words[1]
            return
        _, secret, below = words
        if below <= self._below.get(secret, 0):
            raise AssertionError(f"sender sequence numbers below {below} were reserved twice")
        self._below[secret] = below

    def check(self, folder: Path) -> list[str]:
        links = open_links(folder / "links.db", {"lte": Cap(_CAP_BYTES)}, slice_bytes=4_096)
        try:
            wrong = []
            context = links.contexts.get("lte")
            if context is None and self._below:
                wrong.append("the context was dropped, though nothing was lost")
            if context is not None and context.sequence_reserved < self._below.get(context.master_secret.hex(), 0):
                wrong.append(f"numbers from {context.sequence_reserved} on would be used again")
            booked = sum(each.bytes_ip for each in links.ledger.totals())
            if booked < self._spent_bytes:
                wrong.append(f"of {self._spent_bytes} bytes spent the ledger knows {booked}")
            if links.database.restored or links.database.recreated:
                wrong.append("the ledger's database was not known again")
            return wrong
        finally:
            links.database.crash()


# -- content ------------------------------------------------------------------------------------------------------


def edition(number: int) -> tuple[dict[str, bytes], Manifest, bytes]:
    """Return the files of an edition, its manifest and the signed bytes; neighbours share most of their files."""
    files = {f"page-{page}.html": random.Random(page).randbytes(3_000 + 400 * page) for page in range(6)}
    files["index.html"] = f"edition {number}".encode() * 50
    files[f"media/{number}.bin"] = random.Random(1000 + number).randbytes(40_000)
    signed = Signers().manifest(files, version=number, name="maths")
    return files, parse_document(signed, Manifest)[0], signed


def download(number: int) -> bytes:
    """Return the bytes of a download."""
    return random.Random(5000 + number).randbytes(_DOWNLOAD_BYTES)


def run_content(tell: Tell, folder: str, seed: int) -> None:
    """Take the pieces of a download, and install and activate one edition after another."""
    chance = random.Random(seed)
    base = Path(folder)
    database = open_database(base / "content.db", schema=STATE, share_bytes=8 << 20)
    installer = Installer(base / "content", bytes_max=64 << 20)
    installer.clean()
    while True:
        number = chance.randrange(1, _EDITIONS + 1)
        data = download(number)
        staging = Staging(database, base / "staging", digest(data), len(data))
        missing = list(staging.missing())
        chance.shuffle(missing)
        for index in missing[: chance.randrange(1, 200)]:
            staging.put(index, data[index * PIECE_BYTES : (index + 1) * PIECE_BYTES])
        staging.sync()
        tell("pieces", number, staging.held)
        staging.close()
        _install(tell, installer, base, number, chance)


def _install(tell: Tell, installer: Installer, base: Path, number: int, chance: random.Random) -> None:
    files, manifest, signed = edition(number)
    contents = {digest(data): data for data in files.values()}
    pack = base / "a.pack"
    pack.write_bytes(b"".join(encode_pack(contents[each.digest] for each in wanted_files(manifest, ()))))
    installer.install(manifest, signed, pack, assumed=())
    tell("activates", number)
    installer.activate("maths", digest(signed))
    tell("active", number)
    # Whatever syncs next would make durable what was forgotten here.
    time.sleep(chance.uniform(0, 0.2))


class ContentWork:
    """The active bundle is whole and one of the two that it may be; synced pieces are there and right."""

    function = "tests.powercut.works:run_content"
    options: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._possible: set[int | None] = {None}
        self._pieces: dict[int, int] = defaultdict(int)

    def heard(self, words: list[Any], *, late: bool = False) -> None:
        match words:
            case ["activates", number]:
                self._possible.add(number)
            case ["active", number] if not late:
                self._possible = {number}
            case ["pieces", number, held] if not late:
                self._pieces[number] = max(held, self._pieces[number])

    def check(self, folder: Path) -> list[str]:
        installer = Installer(folder / "content", bytes_max=64 << 20)
        installer.clean()
        wrong = [f"{path} is not what was signed" for path in installer.scrub()]
        wrong += list(_loose_ends(folder / "content"))
        active = installer.active("maths")
        found = None if active is None else active.manifest.version
        if found not in self._possible:
            wrong.append(f"edition {found} is active, of {self._possible} one must be")
        self._possible = {found}
        if active is not None:
            _, manifest, signed = edition(active.manifest.version)
            if active.digest != digest(signed) or active.manifest != manifest:
                wrong.append("the active bundle is none that was ever signed")
        return wrong + self._check_pieces(folder)

    def _check_pieces(self, folder: Path) -> list[str]:
        if not (folder / "content.db").exists():
            return []
        database = open_database(folder / "content.db", schema=STATE, share_bytes=8 << 20)
        try:
            wrong = []
            for number, held in self._pieces.items():
                data = download(number)
                staging = Staging(database, folder / "staging", digest(data), len(data))
                if staging.held < held:
                    wrong.append(f"download {number} holds {staging.held} of {held} pieces that were synced")
                on_disk = staging.path.read_bytes()
                for index in set(range(staging.pieces)) - set(staging.missing()):
                    part = slice(index * PIECE_BYTES, (index + 1) * PIECE_BYTES)
                    if on_disk[part] != data[part]:
                        wrong.append(f"piece {index} of download {number} is noted and is not there")
                staging.close()
            return wrong
        finally:
            database.crash()


def _loose_ends(content: Path) -> list[str]:
    """Return pointers that lead nowhere."""
    return [
        f"{each} leads nowhere"
        for each in content.glob("*/active")
        if not (each.resolve().is_dir() and each.resolve().with_name(each.resolve().name + ".cose").exists())
    ]


# -- the gateway's store ------------------------------------------------------------------------------------------


def prepare_fleet(folder: Path) -> None:
    """Make the gateway's database with one truck, before the first cut."""

    async def prepare() -> None:
        url = f"sqlite:///{folder}/fleet.db"
        await migrate(url)
        fleet = await FleetStore.open(url)
        await add_truck(fleet)
        await fleet.put_context(ContextRecord(b"kid", b"peer", TRUCK, "lte", b"s" * 16, b"", 0, 0))
        await fleet.close()

    asyncio.run(prepare())


def run_fleet(tell: Tell, folder: str, seed: int) -> None:
    """Store evidence and reserve sequence numbers from several tasks at once."""
    asyncio.run(_fleet_on(tell, Path(folder), random.Random(seed)))


async def _fleet_on(tell: Tell, folder: Path, chance: random.Random) -> None:
    fleet = await FleetStore.open(f"sqlite:///{folder}/fleet.db")
    epoch = chance.getrandbits(63)
    sequences = iter(range(1, 1 << 30))
    lock = asyncio.Lock()

    async def ingest() -> None:
        while True:
            items = [
                IngestItem(TRUCK, "lte", epoch, next(sequences), Precedence.NORMAL, chance.randbytes(90), 1, _event())
                for _ in range(chance.randrange(1, 4))
            ]
            for result in await fleet.ingest(items):
                assert result.committed, result
                tell("stored", epoch, result.item.sequence, hashlib.sha256(result.item.sealed).hexdigest()[:16])

    async def reserve() -> None:
        while True:
            async with lock:
                record = await fleet.context(b"kid")
                assert record is not None
                below = record.sender_sequence_reserved + 32
                await fleet.reserve_sequences(b"kid", below)
                tell("numbers", below)
            await asyncio.sleep(0.002)

    await asyncio.gather(ingest(), ingest(), reserve())


def _event() -> EventPart:
    return EventPart("door", 1)


class FleetWork:
    """Evidence that was acknowledged is there, and reserved numbers stay reserved."""

    function = "tests.powercut.works:run_fleet"
    options: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._told: dict[tuple[int, int], str] = {}
        self._below = 0

    def heard(self, words: list[Any], *, late: bool = False) -> None:
        if late:
            return
        if words[0] == "numbers":
            if words[1] <= self._below:
                raise AssertionError(f"the gateway's numbers below {words[1]} were reserved twice")
            self._below = words[1]
        else:
            self._told[(words[1], words[2])] = words[3]

    def check(self, folder: Path) -> list[str]:
        connection = sqlite3.connect(folder / "fleet.db")
        try:
            wrong = [line for (line,) in connection.execute("PRAGMA quick_check(5)") if line != "ok"]
            rows = connection.execute("SELECT epoch, sequence, sealed FROM parcels").fetchall()
            held = {(e, s): hashlib.sha256(sealed).hexdigest()[:16] for e, s, sealed in rows}
            if len(held) != len(rows):
                wrong.append("a parcel is stored twice")
            wrong += [f"evidence {key[1]} is gone" for key, told in self._told.items() if held.get(key) != told]
            (below,) = connection.execute("SELECT sender_sequence_reserved FROM contexts").fetchone()
            if below < self._below:
                wrong.append(f"the gateway's numbers from {below} on would be used again")
            return wrong
        finally:
            connection.close()
