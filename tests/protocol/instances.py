"""Instances of every wire message, made from the types and bounds that its class declares.

So a new message or field is under test from its first line: what the class allows is what hypothesis makes. Only what
an annotation cannot say (a bundle's paths, a payload that fits its kind) is written here by hand.
"""

import importlib
import pkgutil
import re
from typing import Any

import msgspec
from hypothesis import strategies as st

import protocol
from protocol import cbor, documents, messages, tariffs
from protocol.numbers import ParcelKind
from protocol.schema import Channel, Schema
from protocol.wire import WireArray, WireMap

SCHEMA = Schema(
    (
        Channel("volt", "V", scale=100, nominal=5120, typical=4),
        Channel("amps", "A", scale=10, nominal=-3, typical=9, weights=((0, 130),), history=((1, -512), (0, 7))),
    ),
    period_s=60,
)
# A list may be longer than this on the wire: `tests/protocol/test_cddl.py` tries each bound by itself.
LIST_MAX = 3
INT_MIN, INT_MAX = -(1 << 63), (1 << 64) - 1

WireClass = type[WireMap] | type[WireArray]


def wire_classes() -> list[WireClass]:
    """Return every concrete wire message of `protocol`, by name."""
    for module in pkgutil.walk_packages(protocol.__path__, "protocol."):
        importlib.import_module(module.name)
    found: dict[str, WireClass] = {}
    todo: list[WireClass] = [WireMap, WireArray]
    while todo:
        each = todo.pop()
        todo += each.__subclasses__()
        if each.__module__.startswith("protocol.") and each not in (WireMap, WireArray, documents.Document):
            found[each.__name__] = each
    return [found[name] for name in sorted(found)]


def raw(value: object) -> Any:
    """Return a message as the plain lists, maps and values that `cbor.encode` takes."""
    if isinstance(value, WireMap):
        return {label: raw(item) for label, item in value.fields().items()}
    if isinstance(value, messages.Batch):
        return cbor.decode(value.encode())  # what it leaves out is no null
    return msgspec.to_builtins(value, builtin_types=(bytes,))


def instances(wire: WireClass) -> st.SearchStrategy[Any]:
    """Return a strategy for valid records of a wire class."""
    if wire is messages.Parcel:
        return parcels()
    if wire is documents.Addressee:
        return st.one_of(
            st.builds(documents.Addressee, st.lists(_of_field(wire, "trucks.item"), min_size=1, max_size=3).map(tuple)),
            st.builds(lambda group: documents.Addressee((), group), _of_field(documents.Desired, "truck")),
        )
    if wire is tariffs.Pool:
        grants = st.lists(instances(tariffs.Grant), max_size=LIST_MAX).filter(lambda all: sum_of(all) < 1 << 63)
        return st.builds(
            lambda link, unit, given, more: tariffs.Pool(
                link, unit, min((1 << 63) - 1, sum_of(given) + more), tuple(given)
            ),
            _of_field(wire, "link"),
            st.sampled_from(tariffs.Unit),
            grants,
            st.integers(0, 1 << 40),
        )
    fixed: dict[str, st.SearchStrategy[Any]] = {}
    if issubclass(wire, documents.Document):
        fixed["document"] = st.just(wire.kind)
    if wire is documents.Manifest:
        fixed["files"] = bundle_files()
    if wire is messages.SchemaOffer:
        fixed["schema"] = st.just(SCHEMA.encoded)
    if wire is messages.Batch:
        fixed["base_epoch"] = st.none()  # without a base there is none
    fields = {
        each.name: fixed[each.name] if each.name in fixed else _values(each.type)
        for each in msgspec.inspect.type_info(wire).fields
    }
    return st.fixed_dictionaries(fields).map(lambda chosen: wire(**chosen))


def sum_of(grants: list[tariffs.Grant]) -> int:
    """Return what grants come to."""
    return sum(each.amount for each in grants)


def parcels() -> st.SearchStrategy[messages.Parcel]:
    """Return parcels whose payload is what their kind says."""
    kinds: dict[ParcelKind, WireClass] = {
        ParcelKind.BATCH: messages.Batch,
        ParcelKind.EVENT: messages.Event,
        ParcelKind.RECEIPT: messages.Receipt,
        ParcelKind.SCHEMA: messages.SchemaOffer,
        ParcelKind.TOMBSTONE: messages.Tombstone,
    }
    assert set(kinds) == set(ParcelKind)
    return st.one_of(
        st.builds(
            messages.Parcel,
            _of_field(messages.Parcel, "epoch"),
            _of_field(messages.Parcel, "sequence"),
            _of_field(messages.Parcel, "precedence"),
            st.just(kind),
            instances(payload).map(lambda each: each.encode()),
        )
        for kind, payload in kinds.items()
    )


def bundle_files() -> st.SearchStrategy[tuple[documents.ManifestFile, ...]]:
    """Return lists of files that a bundle may have."""
    part = st.text("abcdefgh-_0é", min_size=1, max_size=8)
    paths = st.lists(st.lists(part, min_size=1, max_size=3).map("/".join), min_size=1, max_size=4)

    def build(drawn: list[str]) -> tuple[documents.ManifestFile, ...]:
        kept: list[str] = []
        for path in sorted(set(drawn)):
            try:
                documents.check_paths([*kept, path])
            except ValueError:
                continue
            kept.append(path)
        return tuple(documents.ManifestFile(path, len(path), b"d" * 32) for path in kept)

    return paths.map(build).filter(bool)


def _of_field(wire: WireClass, path: str) -> st.SearchStrategy[Any]:
    name, _, inner = path.partition(".")
    kind = next(each.type for each in msgspec.inspect.type_info(wire).fields if each.name == name)
    return _values(kind.item_type if inner else kind)


def _values(kind: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case msgspec.inspect.IntType():
            low = INT_MIN if kind.ge is None else kind.ge
            high = INT_MAX if kind.le is None else kind.le
            return st.one_of(st.integers(low, high), st.sampled_from([low, high]))
        case msgspec.inspect.BytesType():
            low, high = kind.min_length or 0, kind.max_length
            return st.binary(min_size=low, max_size=min(high or low + 40, low + 40))
        case msgspec.inspect.StrType(pattern=None):
            low, high = kind.min_length or 0, kind.max_length
            return st.text(st.characters(exclude_categories=["Cs"]), min_size=low, max_size=min(high or 40, low + 40))
        case msgspec.inspect.StrType():
            return st.from_regex(kind.pattern, fullmatch=True)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.EnumType():
            return st.sampled_from(list(kind.cls))
        case msgspec.inspect.UnionType():
            return st.one_of(*map(_values, kind.types))
        case msgspec.inspect.VarTupleType():
            low = kind.min_length or 0
            return st.lists(_values(kind.item_type), min_size=low, max_size=low + LIST_MAX).map(tuple)
        case msgspec.inspect.TupleType():
            return st.tuples(*map(_values, kind.item_types))
        case msgspec.inspect.DictType():
            return st.dictionaries(_values(kind.key_type), _values(kind.value_type), max_size=LIST_MAX)
        case msgspec.inspect.StructType():
            return instances(kind.cls)
    raise AssertionError(f"a wire message has a field of a kind that nothing here makes: {kind}")


def smallest(wire: WireClass) -> Any:
    """Return a valid record of few bytes, always the same one."""
    if wire is messages.Parcel:
        return messages.Parcel(None, 1, messages.Precedence.FLASH, ParcelKind.EVENT, smallest(messages.Event).encode())
    if wire is messages.SchemaOffer:
        return messages.SchemaOffer(0, SCHEMA.encoded)
    if wire is documents.Addressee:
        return documents.Addressee(("a",))
    if wire is documents.Manifest:
        head = smallest(documents.Desired)
        files = (documents.ManifestFile("a", 0, bytes(32)),)
        return documents.Manifest(documents.Manifest.kind, head.version, 0, 0, "a", "1", "files", files)
    chosen: dict[str, Any] = {}
    for each in msgspec.inspect.type_info(wire).fields:
        if each.name == "document" and issubclass(wire, documents.Document):
            chosen[each.name] = wire.kind
        elif each.required:
            chosen[each.name] = _smallest(each.type)
    return wire(**chosen)


def _smallest(kind: msgspec.inspect.Type) -> Any:
    match kind:
        case msgspec.inspect.IntType():
            return kind.ge or 0
        case msgspec.inspect.BytesType():
            return bytes(kind.min_length or 0)
        case msgspec.inspect.StrType(pattern=None):
            return "a" * (kind.min_length or 0)
        case msgspec.inspect.StrType():
            return next(text for text in ("a", "1", "", "static", "USD", "a:1") if re.search(kind.pattern or "", text))
        case msgspec.inspect.EnumType():
            return next(iter(kind.cls))
        case msgspec.inspect.UnionType():
            return None
        case msgspec.inspect.VarTupleType():
            return (_smallest(kind.item_type),) * (kind.min_length or 0)
        case msgspec.inspect.TupleType():
            return tuple(map(_smallest, kind.item_types))
        case msgspec.inspect.StructType():
            return smallest(kind.cls)
    raise AssertionError(f"a wire message requires a field of a kind that nothing here makes: {kind}")
