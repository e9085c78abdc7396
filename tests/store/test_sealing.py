"""What is sealed for one key, purpose, object and place opens for no other."""

from __future__ import annotations

import pytest

from protocol.edhoc import generate_key
from protocol.errors import MalformedError, SignatureError
from protocol.numbers import STICK_CHUNK_BYTES
from store.sealing import INFO_UP, ObjectSeal, key_info, open_sealed, seal

DIGEST, OTHER = b"d" * 32, b"o" * 32


@pytest.mark.parametrize("_", range(8))
def test_only_the_x_coordinate_of_a_key_is_needed(_: int) -> None:
    # Half of all keys have an odd y, which nobody is told.
    key = generate_key()
    assert open_sealed(key.private, seal(key.public, b"telemetry", INFO_UP), INFO_UP) == b"telemetry"


def test_another_key_another_purpose_or_a_changed_byte_opens_nothing() -> None:
    key, other = generate_key(), generate_key()
    sealed = seal(key.public, b"telemetry", INFO_UP)
    for private, data, info in (
        (other.private, sealed, INFO_UP),
        (key.private, sealed, key_info(b"i" * 16, "ke-arrow")),
        (key.private, sealed[:-1], INFO_UP),
        (key.private, sealed[:70] + b"x" + sealed[71:], INFO_UP),
        (key.private, b"", INFO_UP),
        (key.private, bytes(65), INFO_UP),
    ):
        with pytest.raises(SignatureError):
            open_sealed(private, data, info)


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(MalformedError):
        seal(b"\xff" * 32, b"", INFO_UP)
    with pytest.raises(MalformedError):
        ObjectSeal(b"short")


def test_a_chunk_opens_only_in_its_place_and_object() -> None:
    sealing = ObjectSeal(b"k" * 32)
    chunk = sealing.cipher(DIGEST).seal(3, b"lesson")
    assert sealing.cipher(DIGEST).open(3, chunk) == b"lesson"
    for number, digest in ((2, DIGEST), (3, OTHER)):
        with pytest.raises(SignatureError):
            sealing.cipher(digest).open(number, chunk)
    for damaged in (chunk[:-1], chunk[:16], b""):
        with pytest.raises(SignatureError):
            sealing.cipher(DIGEST).open(3, damaged)
    assert sealing.name(DIGEST) not in (DIGEST, ObjectSeal(b"j" * 32).name(DIGEST))


def test_a_whole_object_is_its_chunks() -> None:
    sealing, data = ObjectSeal(b"k" * 32), bytes(range(256)) * 5_000
    chunks = [data[at : at + STICK_CHUNK_BYTES] for at in range(0, len(data), STICK_CHUNK_BYTES)]
    stored = b"".join(sealing.cipher(DIGEST).seal(number, chunk) for number, chunk in enumerate(chunks))
    assert sealing.open_whole(DIGEST, stored) == data
    with pytest.raises(SignatureError):
        sealing.open_whole(DIGEST, stored[:-1])
