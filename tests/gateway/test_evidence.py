"""Evidence verifies anywhere, and whatever was changed in it does not."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from gateway.evidence import EvidenceError, LineWriter, Verification, Verifier
from gateway.proof import evidence_lines
from protocol import cose
from protocol.messages import Event, Parcel, Tombstone, seal
from protocol.numbers import ParcelKind, Precedence
from store.fleet.evidence import BatchPart, EventPart, TombstonePart
from store.fleet.fleet import FleetStore
from tests.gateway.fleets import EPOCH, NOW_MS, SCHEMA, Truck, add_truck, truck_key

START_S = 1_794_960_000
START_MS = START_S * 1000


async def signed_event(truck: Truck, name: str = "door.open") -> None:
    parcel = Parcel(EPOCH, truck.sequence + 1, Precedence.NORMAL, ParcelKind.EVENT, Event(name, NOW_MS).encode())
    await truck.send(EventPart(name, NOW_MS), seal(truck.key, parcel, truck.name))


async def signed_schema(truck: Truck) -> None:
    from protocol.messages import SchemaOffer
    from store.fleet.evidence import SchemaPart

    payload = SchemaOffer(1, SCHEMA.encoded).encode()
    parcel = Parcel(EPOCH, truck.sequence + 1, Precedence.NORMAL, ParcelKind.SCHEMA, payload)
    await truck.send(SchemaPart(1, SCHEMA.digest, SCHEMA.encoded), seal(truck.key, parcel, truck.name))


@pytest.fixture
async def truck(fleet: FleetStore) -> Truck:
    """A truck with a schema, three hours of batches, and an event; all of it signed."""
    made = await add_truck(fleet)
    await signed_schema(made)
    for hour in range(3):
        await made.batch([(START_S + 3600 * hour + 60 * n, (2600, n)) for n in range(60)])
    await signed_event(made)
    return made


async def exported(fleet: FleetStore, since_ms: int = 0, until_ms: int = 2 * NOW_MS) -> list[bytes]:
    writer = LineWriter()
    lines = evidence_lines(fleet, "ke-arrow", since_ms=since_ms, until_ms=until_ms, now_ms=NOW_MS)
    data = b"".join([writer.write(page) async for page in lines]) + writer.end()
    return data.splitlines(keepends=True)


def verified(lines: list[bytes], key: bytes | None = None) -> Verification:
    verifier = Verifier(key)
    for line in lines:
        verifier.line(line)
    verifier.check_whole()
    return verifier.result()


def ended(lines: list[bytes]) -> list[bytes]:
    """Return lines under an end line that fits them, as a forger would."""
    import hashlib

    count = sum(json.loads(line)["line"] == "parcel" for line in lines)
    end = {"line": "end", "parcels": count, "sha256": hashlib.sha256(b"".join(lines)).hexdigest()}
    return [*lines, json.dumps(end).encode() + b"\n"]


async def test_everything_that_a_truck_signed_verifies(fleet: FleetStore, truck: Truck) -> None:
    found = verified(await exported(fleet))
    assert (found.parcels, found.verified, found.failed, found.schemas) == (5, 5, 0, 1)
    assert found.kinds == {"batch": 3, "event": 1, "schema": 1}
    assert [(use.signing_key, use.parcels) for use in found.keys] == [(truck.key.public.hex(), 5)]
    assert found.holds
    assert verified(await exported(fleet), truck.key.public) == found


async def test_a_period_has_the_batches_with_rows_in_it_and_the_rest_by_arrival(
    fleet: FleetStore, truck: Truck
) -> None:
    found = verified(await exported(fleet, START_MS + 3_600_000, START_MS + 7_200_000))
    assert found.kinds == {"batch": 1}
    assert found.schemas == 1
    assert verified(await exported(fleet, NOW_MS, NOW_MS + 1000)).kinds == {"event": 1, "schema": 1}


async def test_pages_have_every_parcel_once(fleet: FleetStore, truck: Truck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.proof._PAGE", 2)
    assert verified(await exported(fleet)).verified == 5


async def test_another_key_does_not_verify(fleet: FleetStore, truck: Truck) -> None:
    found = verified(await exported(fleet), truck_key("zm-patel").public)
    assert (found.verified, found.failed, found.holds) == (0, 5, False)
    assert "no key" in found.findings[0].reason


async def test_what_was_signed_before_new_keys_verifies_under_the_old_ones(fleet: FleetStore, truck: Truck) -> None:
    old = truck.key
    secret = cose.digest(b"again")
    await fleet.create_enrolment("ke-arrow", "kenya", secret, NOW_MS + 20_000, "a test", now_ms=NOW_MS + 10_000)
    truck.key = cose.SigningKey(cose.digest(b"new"))
    await fleet.redeem_enrolment(secret, "ke-arrow", truck.key.public, b"cred2", b"kid2", NOW_MS + 10_000)
    await signed_event(truck)
    found = verified(await exported(fleet))
    assert {use.signing_key: use.parcels for use in found.keys} == {old.public.hex(): 5, truck.key.public.hex(): 1}


def changed_bits(line: bytes) -> Iterator[bytes]:
    """Yield a parcel's line with a bit of its signed bytes changed, at some places."""
    parcel = json.loads(line)
    sealed = base64.b64decode(parcel["sealed"])
    for at in range(0, len(sealed), 7):
        broken = bytearray(sealed)
        broken[at] ^= 1 << at % 8
        yield json.dumps(parcel | {"sealed": base64.b64encode(broken).decode()}).encode() + b"\n"


async def test_a_changed_bit_of_any_parcel_is_found_and_named(fleet: FleetStore, truck: Truck) -> None:
    lines = (await exported(fleet))[:-1]
    tried = 0
    for at, line in enumerate(lines):
        if b'"line":"parcel"' not in line:
            continue
        for broken in changed_bits(line):
            found = verified(ended([*lines[:at], broken, *lines[at + 1 :]]))
            assert (found.verified, found.failed) == (4, 1)
            assert found.findings[0].sequence == json.loads(line)["sequence"]
            tried += 1
    assert tried > 50


async def test_another_meaning_of_the_numbers_is_found(fleet: FleetStore, truck: Truck) -> None:
    from dataclasses import replace

    lines = (await exported(fleet))[:-1]
    other = replace(SCHEMA, channels=(replace(SCHEMA.channels[0], scale=10), SCHEMA.channels[1]))
    told = [each for each in lines if b'"line":"schema"' in each]
    # Under its own digest, which the batches then name; and under the digest of the one that was signed.
    named = schema_line(other.digest, other.encoded)
    swapped = [
        named if each in told else each.replace(SCHEMA.digest.hex().encode(), other.digest.hex().encode())
        for each in lines
    ]
    assert verified(ended(swapped)).kinds == {"event": 1, "schema": 1}
    posing = schema_line(SCHEMA.digest, other.encoded)
    found = verified(ended([posing if each in told else each for each in lines]))
    assert (found.failed, found.findings[0].reason) == (3, "its schema is missing, or was changed")


async def test_a_parcel_of_another_truck_or_epoch_is_found(fleet: FleetStore, truck: Truck) -> None:
    lines = (await exported(fleet))[:-1]
    elsewhere = [line.replace(b'"truck":"ke-arrow"', b'"truck":"zm-patel"') for line in lines]
    assert verified(ended(elsewhere)).verified == 0
    later = [line.replace(f"{EPOCH:016x}".encode(), f"{EPOCH + 1:016x}".encode()) for line in lines]
    assert verified(ended(later)).verified == 0
    doubled = [line.replace(b'"sequence":2', b'"sequence":9') for line in lines]
    assert verified(ended(doubled)).findings[0].reason == "it is not the parcel that it is stored as"


async def test_a_file_that_is_not_whole_is_no_evidence(fleet: FleetStore, truck: Truck) -> None:
    lines = await exported(fleet)
    for number in range(1, len(lines)):
        with pytest.raises(EvidenceError, match="cut off"):
            verified(lines[:number])
    with pytest.raises(EvidenceError, match="changed"):
        verified([*lines[:3], *lines[4:]])
    with pytest.raises(EvidenceError, match="after the end"):
        verified([*lines, lines[-1]])
    with pytest.raises(EvidenceError, match="one header"):
        verified(lines[1:])
    with pytest.raises(EvidenceError, match="one header"):
        verified([lines[0], *lines])


@pytest.mark.parametrize(
    "line", [b"", b"[]\n", b"{}\n", b'{"line":"parcel"}\n', b'{"line":"cake"}\n', b"\xff\xfe\n", b"[" * 5_000]
)
async def test_what_is_no_line_is_refused(fleet: FleetStore, truck: Truck, line: bytes) -> None:
    verifier = Verifier()
    verifier.line((await exported(fleet))[0])
    with pytest.raises(EvidenceError, match="line 2"):
        verifier.line(line)


async def test_a_batch_without_its_schema_waits_and_a_refused_one_is_not_counted(
    fleet: FleetStore, truck: Truck
) -> None:
    await truck.send(BatchPart(7, None))
    await truck.send(BatchPart(8, None))
    from store.fleet.evidence import ParcelKey

    await fleet.reject_parked(ParcelKey("ke-arrow", EPOCH, truck.sequence), "it does not verify", NOW_MS)
    found = verified(await exported(fleet))
    assert (found.parcels, found.verified, found.waiting, found.refused, found.failed) == (7, 5, 1, 1, 0)


async def test_a_tombstone_verifies(fleet: FleetStore, truck: Truck) -> None:
    payload = Tombstone(EPOCH, ((90, 95),), "disk full", 12).encode()
    parcel = Parcel(EPOCH, truck.sequence + 1, Precedence.NORMAL, ParcelKind.TOMBSTONE, payload)
    await truck.send(TombstonePart(EPOCH, ((90, 95),), "disk full", 12), seal(truck.key, parcel, truck.name))
    assert verified(await exported(fleet)).kinds["tombstone"] == 1


def schema_line(digest: bytes, encoded: bytes) -> bytes:
    line = {"line": "schema", "digest": digest.hex(), "encoded": base64.b64encode(encoded).decode()}
    return json.dumps(line).encode() + b"\n"
