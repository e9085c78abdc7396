"""The two shapes of a wire message, as typed immutable records over strict CBOR.

`WireArray` is a positional array, for what is small, nested or hot. `WireMap` is a map with small integer labels, for
what will grow: a field that equals its default is left out, and unknown labels are skipped, so that an old truck and a
new gateway (and the reverse) keep understanding each other. The field types and their bounds are the classes' own
annotations, checked by msgspec as the record is built: inside the program a record is already valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, TypeVar

import msgspec
from msgspec import Meta

from protocol import cbor
from protocol.errors import MalformedError
from protocol.numbers import (
    DIGEST_BYTES,
    NAME_PATTERN,
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    TEXT_CHARS_MAX,
)

Uint = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
# A 64-bit random number; msgspec bounds only reach signed 64 bits, and the CBOR scan already refuses more than 64.
Epoch = Annotated[int, Meta(ge=0)]
Sequence = Annotated[int, Meta(ge=1, le=(1 << 53))]
Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Text = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
PublicKey = Annotated[bytes, Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]
Signature = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]

_T = TypeVar("_T")


def convert(value: object, kind: type[_T]) -> _T:
    """Return `value` (from `cbor.decode`) as a valid `kind`; raise `MalformedError` naming the field that is wrong."""
    try:
        # Without `builtin_types` msgspec would take base64 text for a byte string.
        return msgspec.convert(value, type=kind, strict=True, builtin_types=(bytes,))
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise MalformedError(f"{kind.__name__}: {error}") from error


def _builtin(value: object) -> Any:
    return msgspec.to_builtins(value, builtin_types=(bytes,))


class WireArray(msgspec.Struct, frozen=True, array_like=True):
    """A message that is a CBOR array of its fields in their order."""

    def encode(self) -> bytes:
        """Return the deterministic encoding."""
        return cbor.encode(_builtin(self))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the record that `data` encodes; raise `MalformedError`."""
        return convert(cbor.decode(data), cls)


class WireMap(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message that is a CBOR map from `labels` to its fields."""

    labels: ClassVar[Mapping[str, int]]

    def fields(self) -> dict[int, Any]:
        """Return the map that goes on the wire, defaults left out."""
        return {self.labels[name]: value for name, value in _builtin(self).items()}

    def encode(self) -> bytes:
        """Return the deterministic encoding."""
        return cbor.encode(self.fields())

    @classmethod
    def from_fields(cls, value: object) -> Self:
        """Return the record that a decoded map holds; unknown labels are skipped; raise `MalformedError`."""
        if not isinstance(value, dict):
            raise MalformedError(f"{cls.__name__}: a map is wanted")
        known = {name: value[label] for name, label in cls.labels.items() if label in value}
        return convert(known, cls)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the record that `data` encodes; raise `MalformedError`."""
        return cls.from_fields(cbor.decode(data))
