"""COSE signatures: facts beside the vectors of tests/vectors/cose.json."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import cbor, cose
from protocol.errors import MalformedError, SignatureError
from protocol.numbers import DOCUMENT_BYTES_MAX, SIGNATURES_MAX

KEYS = [cose.SigningKey(bytes([n]) * 32) for n in range(1, 4)]
TRUSTED = {key.key_id: key.public for key in KEYS}
AAD, OTHER_AAD = cbor.encode(["one purpose"]), cbor.encode(["another purpose"])


def test_one_signer_and_several() -> None:
    alone = cose.parse(cose.sign1(KEYS[0], b"payload", AAD))
    assert (alone.payload, alone.single) == (b"payload", True)
    assert alone.verify(TRUSTED, AAD) == {KEYS[0].public}
    several = cose.parse(cose.sign(KEYS, b"payload", AAD))
    assert (several.single, several.verify(TRUSTED, AAD)) == (False, {key.public for key in KEYS})


@pytest.mark.parametrize("keys", [KEYS[:1], KEYS])
def test_a_signature_for_one_purpose_means_nothing_for_another(keys: list[cose.SigningKey]) -> None:
    for signed in (cose.sign1(keys[0], b"payload", AAD), cose.sign(keys, b"payload", AAD)):
        with pytest.raises(SignatureError):
            cose.parse(signed).verify(TRUSTED, OTHER_AAD)


def test_a_signature_of_one_form_does_not_pass_as_the_other() -> None:
    alone = cose.parse(cose.sign1(KEYS[0], b"payload", AAD))
    as_several = cose.parse(cose.assemble(b"payload", list(alone.signatures)))
    with pytest.raises(SignatureError):
        as_several.verify(TRUSTED, AAD)


def test_signatures_from_several_sittings_are_put_together_in_one_order() -> None:
    first, second = (cose.parse(cose.sign([key], b"payload", AAD)).signatures[0] for key in KEYS[:2])
    assert cose.assemble(b"payload", [first, second]) == cose.assemble(b"payload", [second, first])
    assert cose.assemble(b"payload", [first, second]) == cose.sign(KEYS[:2], b"payload", AAD)


def test_unknown_signers_are_skipped_but_never_enough() -> None:
    signed = cose.parse(cose.sign(KEYS, b"payload", AAD))
    assert signed.verify({KEYS[1].key_id: KEYS[1].public}, AAD) == {KEYS[1].public}
    with pytest.raises(SignatureError, match="no signature by a key"):
        signed.verify({}, AAD)


def test_a_key_id_is_a_hint_only() -> None:
    signed = cose.parse(cose.sign1(KEYS[0], b"payload", AAD))
    with pytest.raises(SignatureError, match="does not verify"):
        signed.verify({KEYS[0].key_id: KEYS[1].public}, AAD)


def test_the_number_of_signatures_is_bounded() -> None:
    many = [cose.Countersigned(bytes([n]) * 8, bytes(64)) for n in range(SIGNATURES_MAX + 1)]
    assert len(cose.parse(cose.assemble(b"p", many[:-1])).signatures) == SIGNATURES_MAX
    with pytest.raises(MalformedError):
        cose.parse(cose.assemble(b"p", many))
    with pytest.raises(MalformedError):
        cose.parse(cose.assemble(b"p", []))


def test_a_document_beyond_the_limit_is_refused_by_its_length() -> None:
    with pytest.raises(MalformedError, match="bytes of CBOR"):
        cose.parse(bytes(DOCUMENT_BYTES_MAX + 1))


@given(st.binary(max_size=200))
def test_any_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        cose.parse(data)


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33)])
def test_what_is_no_key_verifies_nothing(public: bytes) -> None:
    with pytest.raises(SignatureError):
        cose.verify(public, b"message", KEYS[0].sign(b"message"))


def test_a_private_key_is_never_printed() -> None:
    assert repr(KEYS[0]) == f"SigningKey({KEYS[0].key_id.hex()})"
    assert KEYS[0].seed.hex() not in repr(KEYS[0])
