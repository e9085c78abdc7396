"""Every message that the classes write is what fleet.cddl says, and both refuse the same.

The grammar is used twice: as it is (a receiver, which skips unknown labels) and without its extension points (a sender
of this version, which writes none), so that a new field without its line in the grammar is noticed.
"""

import re
from enum import IntEnum
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest
from cddl_verifier import Validator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import protocol
from protocol import cbor, cose, documents, edhoc, messages, numbers, pack, schema
from protocol.errors import MalformedError
from protocol.joincode import JoinCode
from protocol.summary import Summary, encode_summary, summarise, summary_schema
from protocol.wire import WireMap
from tests.protocol.instances import SCHEMA, WireClass, instances, raw, smallest, wire_classes

TEXT = (Path(protocol.__path__[0]) / "fleet.cddl").read_text()
RECEIVER = Validator(TEXT)
SENDER = Validator(re.sub(r"^  \* extension\n", "", TEXT, flags=re.MULTILINE))
RULES = set(re.findall(r"^([A-Za-z0-9_]+)(?:<\w+>)? =", TEXT, flags=re.MULTILINE))
KEY = cose.SigningKey(b"\x01" * 32)
KEYS = [KEY, cose.SigningKey(b"\x02" * 32)]
WIRE = [pytest.param(each, id=each.__name__) for each in wire_classes()]
DOCUMENTS = [pytest.param(each, id=each.__name__) for each in wire_classes() if issubclass(each, documents.Document)]


def check(data: bytes, rule: str, validator: Validator = SENDER) -> None:
    result = validator.validate(data, rule, require_deterministic=True)
    assert result.valid, result.format()


def fits(value: Any, rule: str, validator: Validator = SENDER) -> bool:
    return validator.validate(cbor2.dumps(value), rule).valid


@pytest.mark.parametrize("wire", WIRE)
def test_wire_class_has_a_rule_of_its_name(wire: WireClass) -> None:
    assert wire.__name__ in RULES


@pytest.mark.parametrize("wire", WIRE)
def test_smallest_record_is_what_its_rule_says(wire: WireClass) -> None:
    record = smallest(wire)
    check(record.encode(), wire.__name__)
    assert wire.decode(record.encode()) == record


@pytest.mark.parametrize("wire", WIRE)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_record_is_what_its_rule_says_and_comes_back_equal(wire: WireClass, data: st.DataObject) -> None:
    record = data.draw(instances(wire))
    encoded = record.encode()
    check(encoded, wire.__name__)
    again = wire.decode(encoded)
    assert again == record
    assert again.encode() == encoded


@pytest.mark.parametrize("wire", [each for each in WIRE if issubclass(each.values[0], WireMap)])
def test_labels_differ_and_name_the_fields(wire: type[WireMap]) -> None:
    assert sorted(wire.labels) == sorted(each.name for each in msgspec.inspect.type_info(wire).fields)
    assert len(set(wire.labels.values())) == len(wire.labels)


@pytest.mark.parametrize("wire", [each for each in WIRE if issubclass(each.values[0], WireMap)])
def test_unknown_label_is_skipped_by_class_and_grammar(wire: type[WireMap]) -> None:
    record = smallest(wire)
    newer = cbor.encode(record.fields() | {99: ["of", {"a": "later"}, b"version"]})
    check(newer, wire.__name__, RECEIVER)
    assert not SENDER.validate(newer, wire.__name__).valid
    assert wire.decode(newer) == record


def edges(kind: msgspec.inspect.Type, record: Any) -> list[tuple[Any, bool]]:
    """Return values at and beyond each bound of a field, each with whether it is allowed; `record` is an item's own."""
    match kind:
        case msgspec.inspect.IntType():
            low = kind.ge if kind.ge is not None else -(1 << 63)
            high = kind.le if kind.le is not None else (1 << 64) - 1
            beyond = [each for each in (low - 1, high + 1) if -(1 << 63) <= each < 1 << 64]
            return [(low, True), (high, True), (b"\x01", False), *((each, False) for each in beyond)]
        case msgspec.inspect.BytesType():
            low, high = kind.min_length or 0, kind.max_length
            inner = [(bytes(low), True), ("text", False), *([(bytes(low - 1), False)] if low else [])]
            return inner if high is None else [*inner, (bytes(high), True), (bytes(high + 1), False)]
        case msgspec.inspect.BoolType():
            return [(True, True), (1, False), (None, False)]
        case msgspec.inspect.EnumType():
            values = [int(each) for each in kind.cls]
            return [*((each, True) for each in values), (max(values) + 1, False), (min(values) - 1, False)]
        case msgspec.inspect.NoneType():
            return [(None, True)]
        case msgspec.inspect.UnionType():
            return [edge for each in kind.types for edge in edges(each, record) if edge[1]] + [([[]], False)]
        case msgspec.inspect.VarTupleType():
            item = next(value for value, allowed in edges(kind.item_type, record) if allowed)
            low, high = kind.min_length or 0, kind.max_length
            assert high is not None, "a list on the wire is bounded"
            lengths = [(low, True), (high, True), (high + 1, False)] if high <= 1_024 else [(low, True)]
            return [([item] * length, allowed) for length, allowed in lengths] + [({}, False)]
        case msgspec.inspect.TupleType():
            inner = [next(value for value, allowed in edges(each, record) if allowed) for each in kind.item_types]
            return [(inner, True), ([*inner, 1], False), (inner[:-1], False)]
        case msgspec.inspect.StrType(pattern=str() as pattern):
            texts = ["", "a", "A", "1", "a" * 31, "a" * 32, "a" * 65, "static", "USD", "*", "ä", "a\n", "127.0.0.1:1"]
            return [(each, re.search(pattern, each) is not None) for each in texts]
        case msgspec.inspect.StrType():
            # Characters here, bytes in the grammar: where the two agree.
            high = kind.max_length or 0
            return [("a" * (kind.min_length or 0), True), ("é" * high, True), ("\U0001f69a" * high + "a", False)]
        case msgspec.inspect.DictType():
            return [({}, True), ({"a": 1, "b": True, "c": "x"}, True), ({"a": b""}, False), ({"a": {}}, False)]
        case msgspec.inspect.StructType():
            return [(raw(smallest(kind.cls)), True), ([], False), (None, False)]
    raise AssertionError(f"no edges for {kind}")


# What an annotation does not say, and the tests of the class do: payloads by kind, one addressee, a manifest's paths.
BY_HAND = {("Parcel", "kind"), ("Parcel", "payload"), ("SchemaOffer", "schema"), ("Addressee", "trucks")}
BY_HAND |= {("Batch", "base_epoch"), ("Addressee", "group"), ("Manifest", "files")} | {
    (each.id, "document") for each in DOCUMENTS
}


@pytest.mark.parametrize("wire", WIRE)
def test_class_and_grammar_refuse_the_same_at_every_bound(wire: WireClass) -> None:
    record = smallest(wire)
    tried = 0
    for at, each in enumerate(msgspec.inspect.type_info(wire).fields):
        if (wire.__name__, each.name) in BY_HAND:
            continue
        for value, allowed in edges(each.type, record):
            fields = raw(record)
            key = wire.labels[each.name] if issubclass(wire, WireMap) else at
            if isinstance(fields, dict) and not each.required and value in (each.default, [], {}, None):
                continue  # a default is left out, so the grammar of a sender does not have it
            if value is None and (isinstance(fields, dict) or not each.required):
                continue
            if isinstance(fields, dict):
                fields[key] = value
            else:
                fields[key : key + 1] = [value]  # the last items of an array may be missing
            encoded = cbor.encode(fields)
            assert SENDER.validate(encoded, wire.__name__).valid is allowed, (each.name, value)
            if allowed:
                wire.decode(encoded)
            else:
                with pytest.raises(MalformedError):
                    wire.decode(encoded)
            tried += 1
    assert tried or wire.__name__ == "Addressee"


def test_a_default_is_never_written() -> None:
    ack = messages.Ack(cumulative=3, ranges=(), time_s=None, epoch_unknown=False, version=numbers.WIRE_VERSION)
    assert ack.encode() == cbor.encode({1: 3})
    assert not fits({1: 3, 7: False}, "Ack")
    assert not fits({1: 3, 8: 1}, "Ack")


@pytest.mark.parametrize("wire", DOCUMENTS)
def test_signed_document_is_what_its_rules_say(wire: type[documents.Document]) -> None:
    document = smallest(wire)
    for keys in ([KEY], KEYS):
        signed = documents.sign_document(document, keys)
        check(signed, "SignedDocument")
        check(documents.document_aad(wire.kind), "DocumentAad")
    alone = documents.sign_document(document, [KEY])
    assert cbor2.loads(alone).tag == (98 if wire in (documents.Root, documents.Delegation) else 18)
    assert not RECEIVER.validate(cbor.encode({1: int(wire.kind)}), wire.__name__).valid


@pytest.mark.parametrize("wire", DOCUMENTS)
def test_document_of_another_kind_does_not_fit_its_rule(wire: type[documents.Document]) -> None:
    fields = raw(smallest(wire))
    fields[1] = int(wire.kind) % 6 + 1
    assert not fits(fields, wire.__name__)


def test_what_a_parcel_is_signed_over() -> None:
    event = messages.Event(name="boot", time_ms=1)
    parcel = messages.Parcel(7, 1, messages.Precedence.FLASH, messages.ParcelKind.EVENT, event.encode())
    sealed = messages.seal(KEY, parcel, "ke-arrow")
    check(sealed[:-64], "Parcel")
    check(messages.parcel_aad("ke-arrow", 7, None), "ParcelAad")
    check(messages.parcel_aad("ke-arrow", (1 << 64) - 1, SCHEMA.digest), "ParcelAad")
    structure = cose.sign1_structure(sealed[:-64], messages.parcel_aad("ke-arrow", 7, None))
    array = cbor.decode(structure)
    assert array[:2] == ["Signature1", bytes.fromhex("a10127")]
    cose.verify(KEY.public, structure, sealed[-64:])


def test_payload_of_another_kind_does_not_fit_a_parcel() -> None:
    event = messages.Event(name="boot", time_ms=1).encode()
    assert fits([None, 1, 0, 2, event], "Parcel")
    assert not fits([None, 1, 0, 3, event], "Parcel")
    assert not fits([None, 1, 0, 2, event + b"\x00"], "Parcel")
    assert not fits([None, 1, 0, 6, event], "Parcel")


def test_what_a_joining_truck_signs_and_the_credentials_of_both() -> None:
    public = b"\x07" * 32
    credential = edhoc.credential(public)
    check(credential, "Credential")
    structure = cbor.decode(messages.enrol_proof("ke-arrow", b"s" * 16, KEY.public, credential, public))
    assert structure[:2] == ["Signature1", bytes.fromhex("a10127")]
    check(structure[2], "EnrolAad")
    check(structure[3], "EnrolProof")


def test_schema_is_what_its_rule_says() -> None:
    check(SCHEMA.encoded, "Schema")
    most = schema.Channel(
        name="a" * schema.NAME_CHARS_MAX,
        unit="°" * schema.UNIT_CHARS_MAX,
        scale=schema.SCALE_MAX,
        nominal=schema.VALUE_MIN,
        spread=schema.VALUE_MAX,
        typical=schema.VALUE_MAX,
        trend=(-schema.WEIGHT_MAX,) * schema.TREND_MAX,
        pull=schema.WEIGHT_MAX,
        activity=(schema.WEIGHT_MAX,) * schema.ACTIVITY_WEIGHTS,
    )
    check(schema.Schema((most,), period_s=schema.PERIOD_S_MAX, ticks_per_s=1000, order=(0,)).encoded, "Schema")
    fields = cbor.decode(SCHEMA.encoded)
    for at, wrong in ((0, 5), (1, 0), (2, 10), (3, [64]), (4, [])):
        assert not fits([*fields[:at], wrong, *fields[at + 1 :]], "Schema")


def test_summary_is_what_its_rule_says() -> None:
    derived = summary_schema(SCHEMA)
    rows = [(1_794_960_000 + 60 * at, (at,) * len(SCHEMA.channels)) for at in range(90)]
    told = Summary(((1, summarise(SCHEMA, rows)), (5, summarise(SCHEMA, rows[:3]))), 1 << 63)
    body = encode_summary(derived, told)
    check(body, "Summary")
    fields = cbor.decode(body)
    for at, wrong in ((0, -1), (1, []), (1, [0, 1]), (1, [1, 1025]), (2, "")):
        assert not fits([*fields[:at], wrong, *fields[at + 1 :]], "Summary")


def test_pack_header_is_what_its_rule_says() -> None:
    header = next(pack.encode_pack([b"text " * 400_000, bytes(range(256))]))
    length = int.from_bytes(header[:4], "big")
    assert length == len(header) - 4
    check(header[4:], "PackHeader")
    assert not fits([2, []], "PackHeader")


@pytest.mark.parametrize("address", ["10.0.0.1:5683", "[2001:db8::1]:5683", "gw.example.org:65535"])
def test_addresses_of_a_join_code(address: str) -> None:
    check(JoinCode("a", (address,), b"s" * 16, b"k" * 32, b"r" * 32).encode(), "JoinCode")


@pytest.mark.parametrize("address", ["10.0.0.1", "[]:1", "a b:1", "x:123456", "http://x:1"])
def test_wrong_addresses_fit_neither_class_nor_grammar(address: str) -> None:
    code = JoinCode("a", (address,), b"s" * 16, b"k" * 32, b"r" * 32).encode()
    assert not SENDER.validate(code, "JoinCode").valid
    with pytest.raises(MalformedError):
        JoinCode.decode(code)


NUMBERED = (numbers.Precedence, numbers.ParcelKind, numbers.DocumentKind, numbers.Outcome, numbers.Refusal)


@pytest.mark.parametrize("numbered", [*NUMBERED, pack.FrameCodec, schema.Codec])
def test_numbers_of_the_grammar_are_those_of_the_code(numbered: type[IntEnum]) -> None:
    line = re.search(rf"^{numbered.__name__} = &\((.*)\)$", TEXT, flags=re.MULTILINE)
    assert line is not None
    assert dict(pair.split(": ") for pair in line.group(1).split(", ")) == {
        name: str(int(value)) for name, value in numbered.__members__.items()
    }


def test_every_rule_is_used_or_named_like_a_message() -> None:
    roots = {each.__name__ for each in wire_classes()} | {"SignedDocument", "SigStructure", "SigStructure1"}
    roots |= {
        "ParcelAad",
        "DocumentAad",
        "EnrolAad",
        "EnrolProof",
        "Credential",
        "PackHeader",
        "Schema",
        "Summary",
        "ParcelKind",
    }
    text = re.sub(r";.*", "", TEXT)
    unused = {rule for rule in RULES - roots if len(re.findall(rf"(?<![\w\"]){rule}(?!\w)", text)) < 2}
    assert not unused
