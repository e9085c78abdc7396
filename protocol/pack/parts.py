"""What a container is taken apart into: its own bytes (`meta`) and the members that it holds.

A container's module offers `parse(source) -> Parsed | None` and `rebuild(meta, members) -> Iterator[bytes]`. What the
content already implies (sizes, checksums, offsets) is not in `meta`: it is computed again on the way back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from protocol.pack.cursor import Source

MEMBER_BYTES_HELD = 16 << 20
"""Members up to this size are held in memory: opened in their turn, and summed before their own header is written."""

META_BYTES_MAX = 24 << 20


class Method(IntEnum):
    """How a member's bytes are packed inside the container."""

    STORED = 0
    DEFLATE = 1
    ZSTD = 2


class Inner(IntEnum):
    """What a member's content is, where the container says so and the content does not."""

    CLUSTER = 1
    WIDE_CLUSTER = 2


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member's packed bytes are (offset, length), and the bytes that they hold."""

    ranges: Sequence[tuple[int, int]]
    method: Method
    size: int
    window_bits: int = 15
    inner: Inner | None = None

    @property
    def packed_size(self) -> int:
        """Bytes of the member as it is packed."""
        return sum(length for _, length in self.ranges)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A container taken apart. Members are in the order in which `rebuild` asks for them."""

    meta: bytes
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Packed:
    """A member's bytes as the container holds them; sums are None for a member too large to be held."""

    pieces: Iterable[bytes]
    size: int | None
    crc: int | None
    adler: int | None = None


class Members(Protocol):
    """Hands the members of a container to its `rebuild`, in their order."""

    def take(self, method: Method, size: int, inner: Inner | None = None) -> Packed:
        """Return the next member, whose content is `size` bytes, packed again."""


class Container(Protocol):
    """A kind of container."""

    def matches(self, head: bytes) -> bool:
        """Return whether these first bytes (up to 512) may be such a container's."""

    def parse(self, source: Source) -> Parsed | None:
        """Return the container's parts, or None for what this software does not take apart."""

    def rebuild(self, meta: bytes, members: Members) -> Iterator[bytes]:
        """Yield the container's bytes again; raise `MalformedError`."""
