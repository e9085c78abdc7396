"""Messages: byte-exact vectors, read both ways, and what seals and refuses a parcel."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import cbor, cose, documents, edhoc, messages
from protocol.errors import MalformedError, PeerError, SignatureError
from protocol.joincode import read_join_code
from protocol.messages import Ack, Batch, Event, Parcel, Tombstone, Upload, decode_payload, seal, unseal, verify_parcel
from protocol.numbers import (
    DATAGRAM_PAYLOAD_BYTES_MAX,
    PARCEL_BYTES_MAX,
    RANGES_IN_ACK_MAX,
    SIGNATURE_BYTES,
    ParcelKind,
    Precedence,
)
from protocol.wire import Digest, WireArray
from tests.protocol.instances import parcels, wire_classes

FILE = json.loads((Path(__file__).resolve().parent.parent / "vectors" / "messages.json").read_text())
CLASSES = {each.__name__: each for each in wire_classes()}
KEY = cose.SigningKey(b"\x05" * 32)
EPOCH = (1 << 64) - 1
SCHEMA_DIGEST = b"s" * 32


def named(section: str) -> Any:
    return pytest.mark.parametrize("vector", [pytest.param(each, id=each["name"]) for each in FILE[section]])


def value_of(form: Any) -> Any:
    if isinstance(form, dict):
        if "bytes" in form:
            return bytes.fromhex(form["bytes"])
        return {value_of(key): value_of(value) for key, value in form["map"]}
    if isinstance(form, list):
        return [value_of(item) for item in form]
    return form


@named("vectors")
def test_message_vector(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    value = value_of(vector["value"])
    assert cbor.encode(value) == data
    assert cbor.decode(data) == value
    record = CLASSES[vector["class"]].decode(data)
    assert record.encode() == data


def test_every_message_that_travels_has_a_vector() -> None:
    parts = {"RoleKeys", "PublisherRole", "OperatorRole", "Addressee", "CollectorConfig", "LinkConfig"}
    parts |= {"Tariff", "Roaming", "Box", "Window", "Budget", "Shares", "Pool", "Grant", "Power", "Timetable"}
    parts |= {"ManifestFile", "DesiredEntry", "Frame", "ExchangeKey", "StickEpoch", "StickTruck", "StickPack"}
    messages_here = {name for name, each in CLASSES.items() if not each.__module__.startswith("protocol.pack")}
    assert {each["class"] for each in FILE["vectors"]} == messages_here - parts


@named("parcels")
def test_parcel_vector(vector: dict[str, Any]) -> None:
    core, sealed = bytes.fromhex(vector["core"]), bytes.fromhex(vector["sealed"])
    meaning = bytes.fromhex(vector["meaning"]) if vector["meaning"] else None
    if "base" in vector:
        base = messages.content_digest(bytes.fromhex(vector["base"]))
        assert messages.batch_meaning(bytes.fromhex(vector["schema"]), base) == meaning
    parcel = unseal(sealed)
    assert sealed[:-SIGNATURE_BYTES] == core == parcel.encode()
    assert messages.parcel_aad(vector["truck"], vector["epoch"], meaning).hex() == vector["external_aad"]
    key = cose.SigningKey(bytes.fromhex(vector["seed"]))
    full = Parcel(vector["epoch"], parcel.sequence, parcel.precedence, parcel.kind, parcel.payload)
    assert seal(key, full, vector["truck"], meaning) == sealed
    verify_parcel(sealed, bytes.fromhex(vector["public"]), vector["truck"], vector["epoch"], meaning)
    assert isinstance(decode_payload(parcel), (Event, Batch))


@named("documents")
def test_document_vector(vector: dict[str, Any]) -> None:
    signed = bytes.fromhex(vector["signed"])
    keys = [cose.SigningKey(bytes.fromhex(seed)) for seed in vector["seeds"]]
    document, parts = documents.parse_document(signed, documents.Document)
    assert parts.payload.hex() == vector["payload"]
    assert documents.document_aad(document.kind).hex() == vector["external_aad"]
    assert documents.sign_document(document, keys) == signed
    assert cose.digest(signed).hex() == vector["digest"]


def test_enrolment_vector() -> None:
    vector = FILE["enrol"]
    key = cose.SigningKey(bytes.fromhex(vector["seed"]))
    credential = edhoc.credential(bytes.fromhex(vector["x_of_truck"]))
    assert credential.hex() == vector["credential"]
    secret, gateway = bytes.fromhex(vector["secret"]), bytes.fromhex(vector["x_of_gateway"])
    message = messages.enrol_proof(vector["truck"], secret, key.public, credential, gateway)
    assert message.hex() == vector["to_be_signed"]
    assert key.sign(message).hex() == vector["proof"]


@pytest.mark.parametrize("vector", FILE["join_codes"])
def test_join_code_vector(vector: dict[str, str]) -> None:
    code = read_join_code(vector["text"])
    assert code.encode().hex() == vector["hex"]
    assert code.text() == vector["text"]


def sealed_event(sequence: int = 1, **changes: Any) -> bytes:
    event = Event(name="boot", time_ms=1, **changes)
    return seal(KEY, Parcel(EPOCH, sequence, Precedence.FLASH, ParcelKind.EVENT, event.encode()), "ke-arrow")


def test_a_sealed_parcel_carries_no_epoch_and_little_else() -> None:
    sealed = sealed_event()
    assert unseal(sealed).epoch is None
    event = Event(name="boot", time_ms=1).encode()
    assert len(sealed) == len(event) + 6 + SIGNATURE_BYTES


def test_a_parcel_without_its_epoch_is_not_sealed() -> None:
    with pytest.raises(ValueError, match="epoch"):
        seal(KEY, Parcel(None, 1, Precedence.FLASH, ParcelKind.EVENT, b""), "ke-arrow")


@pytest.mark.parametrize(
    ("truck", "epoch", "meaning"),
    [("ke-huawei", EPOCH, None), ("ke-arrow", EPOCH - 1, None), ("ke-arrow", EPOCH, SCHEMA_DIGEST)],
)
def test_a_parcel_means_nothing_elsewhere(truck: str, epoch: int, meaning: bytes | None) -> None:
    sealed = sealed_event()
    verify_parcel(sealed, KEY.public, "ke-arrow", EPOCH)
    with pytest.raises(SignatureError):
        verify_parcel(sealed, KEY.public, truck, epoch, meaning)
    with pytest.raises(SignatureError):
        verify_parcel(sealed, cose.SigningKey(b"\x06" * 32).public, "ke-arrow", EPOCH)


def test_a_batch_is_bound_to_its_schema() -> None:
    parcel = Parcel(EPOCH, 1, Precedence.BULK, ParcelKind.BATCH, Batch(1, None, b"body").encode())
    sealed = seal(KEY, parcel, "ke-arrow", SCHEMA_DIGEST)
    verify_parcel(sealed, KEY.public, "ke-arrow", EPOCH, SCHEMA_DIGEST)
    for other in (None, b"t" * 32):
        with pytest.raises(SignatureError):
            verify_parcel(sealed, KEY.public, "ke-arrow", EPOCH, other)


def test_every_changed_byte_of_a_parcel_is_noticed() -> None:
    sealed = sealed_event()
    for at in range(len(sealed)):
        changed = sealed[:at] + bytes([sealed[at] ^ 0x40]) + sealed[at + 1 :]
        with pytest.raises(PeerError):
            unseal(changed), verify_parcel(changed, KEY.public, "ke-arrow", EPOCH)


@pytest.mark.parametrize("data", [b"", bytes(64), bytes(70), bytes(PARCEL_BYTES_MAX + 1), b"\xff" * 100])
def test_what_is_no_sealed_parcel_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        unseal(data)


@settings(deadline=None, max_examples=40)
@given(parcels())
def test_the_payload_of_a_parcel_is_typed_by_its_kind(parcel: Parcel) -> None:
    payload = decode_payload(parcel)
    assert payload.encode() == parcel.payload
    for kind in set(ParcelKind) - {parcel.kind}:
        other = Parcel(None, 1, Precedence.FLASH, kind, parcel.payload + b"\x00")
        with pytest.raises(MalformedError):
            decode_payload(other)


@given(st.sampled_from(ParcelKind), st.binary(max_size=60))
def test_any_payload_is_typed_or_malformed(kind: ParcelKind, payload: bytes) -> None:
    try:
        decode_payload(Parcel(None, 1, Precedence.FLASH, kind, payload))
    except MalformedError:
        return


def test_the_common_acknowledgement_is_a_few_bytes() -> None:
    assert len(Ack(cumulative=20).encode()) == 3
    assert len(Ack(cumulative=100_000).encode()) == 7
    assert len(Upload(parcels=(sealed_event(),)).encode()) == len(sealed_event()) + 5
    assert len(Upload(parcels=(b"p" * 1_180,)).encode()) <= DATAGRAM_PAYLOAD_BYTES_MAX


def test_what_an_acknowledgement_covers_and_tells_of() -> None:
    ack = Ack(cumulative=3, ranges=((5, 6), (9, 9)))
    assert [n for n in range(1, 11) if ack.covers(n)] == [1, 2, 3, 5, 6, 9]
    assert ack.tells_of(1_000)
    full = Ack(cumulative=0, ranges=tuple((2 * n, 2 * n) for n in range(1, RANGES_IN_ACK_MAX + 1)))
    last = 2 * RANGES_IN_ACK_MAX
    assert [full.tells_of(n) for n in (1, last - 1, last + 1, last + 2)] == [True, True, False, False]


@pytest.mark.parametrize("ranges", [(), ((1, 1),) * 257, ((0, 1),), ((1,),), ((1, 2, 3),)])
def test_a_tombstone_names_a_bounded_number_of_sequences(ranges: Any) -> None:
    with pytest.raises(MalformedError):
        Tombstone.decode(Tombstone(epoch=1, ranges=ranges, reason="").encode())


def test_an_event_takes_no_nested_or_fractional_values() -> None:
    for value in (b"bytes", [1], {"a": 1}, None):
        with pytest.raises(MalformedError):
            Event.decode(cbor.encode({1: "boot", 2: 1, 3: {"k": value}}))
    with pytest.raises(MalformedError):
        Event.decode(bytes.fromhex("a30164626f6f740201") + bytes.fromhex("03a1616bf93c00"))


@pytest.mark.parametrize("name", ["", "Boot", "a b", ".a", "a" * 65, "a\n"])
def test_an_event_has_a_plain_name(name: str) -> None:
    with pytest.raises(MalformedError):
        Event.decode(Event(name=name, time_ms=1).encode())


def test_a_base_is_named_by_its_distance_or_by_epoch_and_sequence() -> None:
    assert Batch(1, None, b"body").base_of(EPOCH, 9) is None
    assert Batch(1, None, b"body", 2).base_of(EPOCH, 9) == (EPOCH, 7)
    assert Batch(1, None, b"body", 70, 5).base_of(EPOCH, 9) == (5, 70)
    with pytest.raises(MalformedError, match="before the first"):
        Batch(1, None, b"body", 9).base_of(EPOCH, 9)


def test_a_batch_means_nothing_after_another_base() -> None:
    schema, base = (
        bytes(32),
        seal(KEY, Parcel(EPOCH, 1, Precedence.BULK, ParcelKind.BATCH, b"one"), "ke-arrow", bytes(32)),
    )
    meaning = messages.batch_meaning(schema, messages.content_digest(base))
    sealed = seal(KEY, Parcel(EPOCH, 2, Precedence.BULK, ParcelKind.BATCH, b"two"), "ke-arrow", meaning)
    verify_parcel(sealed, KEY.public, "ke-arrow", EPOCH, meaning)
    other = seal(KEY, Parcel(EPOCH, 1, Precedence.BULK, ParcelKind.BATCH, b"won"), "ke-arrow", schema)
    for wrong in (
        schema,
        messages.batch_meaning(schema, messages.content_digest(other)),
        messages.batch_meaning(schema),
    ):
        with pytest.raises(SignatureError):
            verify_parcel(sealed, KEY.public, "ke-arrow", EPOCH, wrong)


class EarlierPackRequest(WireArray, frozen=True):
    """As it was before trucks told which views they know."""

    manifest: Digest
    held: tuple[Digest, ...] = ()
    profile: bytes = b""


def test_a_request_for_a_pack_is_understood_by_older_and_newer_software() -> None:
    now, before = messages.PackRequest(bytes(32), (), b"p", 1), EarlierPackRequest(bytes(32), (), b"p")
    assert EarlierPackRequest.decode(now.encode()) == before
    assert messages.PackRequest.decode(before.encode()) == messages.PackRequest(bytes(32), (), b"p", 0)
