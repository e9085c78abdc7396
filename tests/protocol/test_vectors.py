"""Runs tests/vectors: the bytes that this wire accepts and refuses, for any implementation to run as well.

Each file says in `about` what its keys mean. A refused vector fails for one reason only, so that a decoder which loses
one of its checks loses exactly that vector.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocol import batch, cbor, cose
from protocol.errors import MalformedError, SignatureError
from protocol.schema import Codec, decode_schema
from protocol.summary import ChannelPiece, Piece, Summary, decode_summary, encode_summary

VECTORS = Path(__file__).resolve().parent.parent / "vectors"
ERRORS = {"MalformedError": MalformedError, "SignatureError": SignatureError}

Vector = dict[str, Any]


def run(file: str) -> Callable[[Callable[[Vector], None]], Any]:
    """Return the mark that runs a test once for each vector of `file`, under the vector's name."""
    vectors = json.loads((VECTORS / file).read_text())["vectors"]
    assert len({vector["name"] for vector in vectors}) == len(vectors)
    return pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in vectors])


def value_of(form: Any) -> Any:
    """Return the value that a vector's JSON form stands for."""
    if isinstance(form, dict):
        if "bytes" in form:
            return bytes.fromhex(form["bytes"])
        return {value_of(key): value_of(value) for key, value in form["map"]}
    if isinstance(form, list):
        return [value_of(item) for item in form]
    return form


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal with their types: False is not 0 here."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, tuple):
        return same(list(one), list(other))
    return bool(one == other)


@run("cbor.json")
def test_cbor(vector: Vector) -> None:
    data = bytes.fromhex(vector["hex"])
    if vector["expect"] == "accept":
        value = value_of(vector["value"])
        assert same(cbor.decode(data), value)
        assert cbor.encode(value) == data
    else:
        assert vector["expect"] == "refuse"
        with pytest.raises(MalformedError):
            cbor.decode(data)


@run("ed25519.json")
def test_ed25519(vector: Vector) -> None:
    public, message, signature = (bytes.fromhex(vector[key]) for key in ("public", "message", "signature"))
    if vector["expect"] == "accept":
        cose.verify(public, message, signature)
        key = cose.SigningKey(bytes.fromhex(vector["seed"]))
        assert key.public == public
        assert key.sign(message) == signature
    else:
        assert vector["expect"] == "refuse"
        with pytest.raises(SignatureError):
            cose.verify(public, message, signature)


@run("sig_structure.json")
def test_sig_structure(vector: Vector) -> None:
    headers = [bytes.fromhex(vector[key]) for key in ("body_protected", "sign_protected") if key in vector]
    rest = [bytes.fromhex(vector[key]) for key in ("external_aad", "payload")]
    message = bytes.fromhex(vector["to_be_signed"])
    assert cbor.encode([vector["context"], *headers, *rest]) == message
    assert cbor.decode(message) == [vector["context"], *headers, *rest]
    if "public" in vector:
        cose.verify(bytes.fromhex(vector["public"]), message, bytes.fromhex(vector["signature"]))


@run("cose.json")
def test_cose(vector: Vector) -> None:
    data, aad = bytes.fromhex(vector["hex"]), bytes.fromhex(vector["external_aad"])
    trusted = {cose.key_id(public): public for public in map(bytes.fromhex, vector["trusted"])}
    if vector["expect"] == "MalformedError":
        with pytest.raises(MalformedError):
            cose.parse(data)
        return
    signed = cose.parse(data)
    if vector["expect"] == "SignatureError":
        with pytest.raises(SignatureError):
            signed.verify(trusted, aad)
        return
    assert vector["expect"] == "accept"
    assert signed.payload == bytes.fromhex(vector["payload"])
    assert signed.verify(trusted, aad) == frozenset(map(bytes.fromhex, vector["signers"]))


@run("cose.json")
def test_cose_is_made_again_byte_for_byte(vector: Vector) -> None:
    keys = [cose.SigningKey(bytes.fromhex(seed)) for seed in vector.get("seeds", ())]
    if not keys:
        return
    payload, aad = bytes.fromhex(vector["payload"]), bytes.fromhex(vector["external_aad"])
    again = cose.sign1(keys[0], payload, aad) if len(keys) == 1 else cose.sign(keys, payload, aad)
    assert again.hex() == vector["hex"]
    if len(keys) > 1:
        assert cose.sign(keys[::-1], payload, aad) == again


def summary_of(form: Any) -> Summary:
    """Return the summary that a vector's JSON form stands for."""

    def piece(first: int, last: int, rows: int, channels: list[Any]) -> Piece:
        return Piece(first, last, rows, tuple(None if each is None else ChannelPiece(*each) for each in channels))

    batches = tuple((sequence, tuple(piece(*each) for each in pieces)) for sequence, pieces in form["batches"])
    return Summary(batches, form["epoch"])


@run("batches.json")
def test_batches(vector: Vector) -> None:
    schema, body = decode_schema(bytes.fromhex(vector["schema"])), bytes.fromhex(vector["hex"])
    decoded = decode_summary if schema.codec is Codec.SUMMARY else batch.decode
    if vector["expect"] != "accept":
        with pytest.raises(ERRORS[vector["expect"]]):
            decoded(schema, body)
    elif "summary" in vector:
        summary = summary_of(vector["summary"])
        assert decode_summary(schema, body) == summary
        assert encode_summary(schema, summary) == body
    else:
        base = None
        for each in vector.get("after", ()):
            base = batch.decode_on(schema, bytes.fromhex(each), base=base)[1]
        rows = [(time, tuple(values)) for time, values in vector["rows"]]
        assert batch.decode(schema, body, base=base) == rows
        assert not vector.get("encodes", True) or batch.encode(schema, rows, base=base) == body
