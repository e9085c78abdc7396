"""Ingest on one core: signed 60-row batches verified, committed and acknowledged.

Three times: through `Ingest` alone (what verifying and committing cost), and over OSCORE on loopback through the fast
lane and through aiocoap, the truck being a process of its own. The figures are per second of processor time of the
gateway's process, all of its threads together: what one core does when nothing else wants it. Batches have 16
channels; each is an upload, and seven of eight go on from another one.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiocoap.message import Message
from aiocoap.numbers import codes
from aiocoap.numbers.types import NON

from edge.bases import RUN_BATCHES
from gateway.commits import GroupCommit
from gateway.ingest import Ingest
from protocol import batch, cose, edhoc
from protocol.messages import Batch, Parcel, SchemaOffer, Upload, batch_meaning, content_digest, seal
from protocol.numbers import PATH_UPLOAD, ParcelKind, Precedence
from protocol.schema import Channel, Codec, Schema
from store.fleet.fleet import FleetStore, migrate
from store.fleet.records import TruckRecord
from tests.gateway.coapside import GATEWAY_KEY, Clock, ScriptedTruck, open_side, open_truck
from tests.gateway.fleets import NOW_MS, Signers

NAME = "ingest"
TRUCK = "bench-truck"
ROWS = 60
_EPOCH = 77
# As many as four links of a truck have, or as many trucks together.
_WINDOW = 256
_DISTINCT = 24
_FAR = 24 * 25 + 2  # more than are under way, and a whole number of turns before
_LOOK_EVERY_S, _PATIENCE_S = 0.002, 300.0
SCHEMA = Schema(tuple(Channel(f"c{index}", "V", 100, 2600, 5) for index in range(16)), period_s=60, codec=Codec.CARRIED)


class _RealClock(Clock):
    """Admission gives tokens as real time passes."""

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class IngestFigures:
    """Batches, and the seconds that they took: of processor time of the gateway, and by the clock."""

    batches: int
    cpu_s: float
    wall_s: float

    @property
    def rows_a_core(self) -> float:
        """Rows a second of processor time."""
        return self.batches * ROWS / self.cpu_s


def run(args: list[str]) -> list[tuple[str, str, str, str]]:
    """Return (figure, measured, anchor, limit); `args` may name the number of batches."""
    count = int(args[0]) if args else 5_000
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory(prefix="digitruck-bench-") as folder:
        alone = asyncio.run(measure_ingest(Path(folder), count))
    with tempfile.TemporaryDirectory(prefix="digitruck-bench-") as folder:
        fast = asyncio.run(measure_whole(Path(folder), count, fast=True))
    with tempfile.TemporaryDirectory(prefix="digitruck-bench-") as folder:
        slow = asyncio.run(measure_whole(Path(folder), count // 3, fast=False))
    return [
        _row("rows/s a core, Ingest alone", alone, "", ""),
        _row("rows/s a core, OSCORE, fast lane", fast, "a fast lane alone 53,500 requests/s", "100,000"),
        _row("rows/s a core, OSCORE, aiocoap", slow, "aiocoap OSCORE alone 2,950 requests/s", ""),
    ]


def _row(figure: str, measured: IngestFigures, anchor: str, limit: str) -> tuple[str, str, str, str]:
    text = f"{measured.rows_a_core:,.0f} ({measured.batches / measured.cpu_s:,.0f} batches)"
    return figure, text, anchor, limit


def uploads(key: cose.SigningKey, count: int) -> list[bytes]:
    """Return encoded uploads: the schema, then `count` batches of one parcel each."""
    random_ = random.Random(1)
    alone: list[bytes] = []
    based: list[bytes] = []
    base = None
    for number in range(_DISTINCT):
        values = [2_600] * 16
        rows = []
        for minute in range(ROWS):
            values = [value + random_.randrange(-5, 6) for value in values]
            rows.append((NOW_MS // 1000 + number * 3_600 + minute * 60, tuple(values)))
        alone.append(batch.encode(SCHEMA, rows))
        based.append(batch.encode(SCHEMA, rows, base=base if number % RUN_BATCHES else None))
        base = batch.decode_on(SCHEMA, based[-1], base=base if number % RUN_BATCHES else None)[1]
    offer = SchemaOffer(1, SCHEMA.encoded).encode()
    made = [seal(key, Parcel(_EPOCH, 1, Precedence.NORMAL, ParcelKind.SCHEMA, offer), TRUCK)]
    for sequence in range(2, count + 2):
        at = sequence % _DISTINCT
        meaning = SCHEMA.digest
        payload = Batch(1, None, alone[at] if sequence <= _FAR else based[at])
        if sequence > _FAR and at % RUN_BATCHES:
            # A truck goes on from what was acknowledged: the last that surely is. Nothing but heads is read here.
            payload = Batch(1, None, based[at], _FAR - 1)
            meaning = batch_meaning(SCHEMA.digest, content_digest(made[sequence - _FAR]))
        parcel = Parcel(_EPOCH, sequence, Precedence.NORMAL, ParcelKind.BATCH, payload.encode())
        made.append(seal(key, parcel, TRUCK, meaning))
    return [Upload((sealed,), _EPOCH).encode() for sealed in made]


async def measure_ingest(folder: Path, count: int) -> IngestFigures:
    """Decode, verify, commit and acknowledge `count` uploads, up to 512 of them waiting at a time."""
    fleet = await _open(folder)
    key = cose.SigningKey(os.urandom(32))
    truck = await _enrol(fleet, key.public, edhoc.generate_key().credential)
    commits = GroupCommit(fleet)
    ingest = Ingest(fleet, commits, now_ms=lambda: NOW_MS)
    work = asyncio.create_task(commits.run())
    first, *rest = uploads(key, count)
    room = asyncio.Semaphore(512)

    async def one(encoded: bytes) -> None:
        async with room:
            ack, _ = await ingest.upload(truck, "lte", Upload.decode(encoded))
            ack.encode()

    await one(first)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one(each) for each in rest))
    figures = IngestFigures(count, time.process_time() - cpu_s, time.perf_counter() - wall_s)
    work.cancel()
    state = await fleet.epoch_state(TRUCK)
    await fleet.close()
    assert state is not None
    assert state.cumulative == count + 1, "every batch was committed"
    return figures


async def measure_whole(folder: Path, count: int, *, fast: bool) -> IngestFigures:
    """Serve a load process that sends `count` uploads over OSCORE, by one lane or the other."""
    fleet = await _open(folder)
    async with open_side(fleet, folder, _RealClock(), fast=fast) as side:
        await side.documents.accept(Signers().root_document(), "bench")
        host, port = side.address
        load = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "tests.bench.ingest",
                "--load",
                host,
                str(port),
                str(count),
                GATEWAY_KEY.public.hex(),
            ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert load.stdin is not None
        assert load.stdout is not None
        keys = json.loads(await load.stdout.readline())
        await _enrol(fleet, bytes.fromhex(keys["signing"]), bytes.fromhex(keys["credential"]))
        load.stdin.write(b"go\n")
        await load.stdout.readline()  # the session stands, the schema is there
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        load.stdin.write(b"go\n")
        await load.stdout.readline()
        figures = IngestFigures(count, time.process_time() - cpu_s, time.perf_counter() - wall_s)
        await load.wait()
        state = await fleet.epoch_state(TRUCK)
    await fleet.close()
    assert state is not None
    assert state.cumulative == count + 1, "every batch was committed"
    return figures


async def _load(host: str, port: int, count: int, gateway_public: bytes) -> None:
    async with open_truck((host, port), TRUCK) as truck:
        truck.gateway_public = gateway_public
        print(json.dumps({"signing": truck.signing.public.hex(), "credential": truck.edhoc_key.credential.hex()}))
        sys.stdout.flush()
        sys.stdin.readline()
        first, *rest = uploads(truck.signing, count)
        await truck.handshake("lte")
        answer = await truck.ask("u", first, answer_s=30.0)
        assert answer.code.is_successful(), answer.code
        datagrams = [_protected(truck, number, encoded) for number, encoded in enumerate(rest)]
        print("ready", flush=True)
        sys.stdin.readline()
        await asyncio.to_thread(_send_all, (host, port), datagrams)
        print("done", flush=True)


def _protected(truck: ScriptedTruck, number: int, encoded: bytes) -> bytes:
    assert truck.session is not None
    message, _ = truck.session.protect(Message(code=codes.POST, uri_path=[PATH_UPLOAD], payload=encoded))
    message.mtype, message.mid, message.token = NON, number % 65_536, number.to_bytes(4, "big")
    return bytes(message.encode())


def _send_all(address: tuple[str, int], datagrams: list[bytes]) -> None:
    """Keep so many in flight, until each was answered; on loopback none is lost.

    It looks for answers now and then: one that slept on its socket would be woken for each, at the gateway's expense.
    """
    sent = answered = 0
    given_up_at = time.monotonic() + _PATIENCE_S
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.setblocking(False)
        while answered < len(datagrams):
            for data in datagrams[sent : answered + _WINDOW]:
                sock.send(data)
            sent = max(sent, min(answered + _WINDOW, len(datagrams)))
            time.sleep(_LOOK_EVERY_S)
            with suppress(BlockingIOError):
                while True:
                    assert sock.recv(2_048)[1] == codes.CHANGED
                    answered += 1
            assert time.monotonic() < given_up_at, f"{answered} of {sent} were answered"


async def _open(folder: Path) -> FleetStore:
    url = f"sqlite:///{folder}/fleet.db"
    await migrate(url)
    return await FleetStore.open(url)


async def _enrol(fleet: FleetStore, signing: bytes, credential: bytes) -> TruckRecord:
    secret = os.urandom(32)
    await fleet.create_enrolment(TRUCK, "bench", secret, NOW_MS + 1_000, "bench", now_ms=NOW_MS)
    kid = edhoc.credential_kid(credential)
    return await fleet.redeem_enrolment(secret, TRUCK, signing, credential, kid, NOW_MS)


if __name__ == "__main__":
    asyncio.run(_load(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), bytes.fromhex(sys.argv[5])))
