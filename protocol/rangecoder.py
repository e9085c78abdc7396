"""A binary range coder of 32 bits without carries: bits and probabilities in, bytes out, and back.

The coder narrows an interval [low, high] with each bit in proportion to the bit's probability and writes a byte
whenever both ends agree on it (the coder of Mahoney's PAQ family; Martin, "Range encoding", 1979). Only integer
arithmetic of exact results is used, so every machine writes and reads the same bytes.

Encoder and decoder share one `bit` signature: a model calls it once and runs in both directions, so the two cannot
drift apart. Deliberately absent: any model, any framing, any checksum (the parcel's signature covers the bytes).
"""

from __future__ import annotations

from typing import Final, Protocol

from protocol.errors import MalformedError

PROBABILITY_BITS: Final = 16
PROBABILITY_ONE: Final = 1 << PROBABILITY_BITS
_MASK: Final = 0xFFFF_FFFF
_TOP: Final = 0x0100_0000
_TAIL_BYTES_MAX: Final = 4


class Coder(Protocol):
    """What a model needs: both directions answer with the bit that was coded.

    The registers are for `residuals`, whose loop works on them: [low, high] is the interval; `code` is what was read
    (if `reading`), `out` what was written.
    """

    reading: bool
    low: int
    high: int
    code: int
    out: bytearray

    def next_byte(self) -> int:
        """Return the next byte to be read."""
        ...

    def bit(self, bit: int, one: int) -> int:
        """Code one bit whose probability of being 1 is `one` / 65536, with 0 < one < 65536; a decoder ignores `bit`."""
        ...

    def raw(self, value: int, bits: int) -> int:
        """Code `bits` bits of `value` that no model can predict; a decoder ignores `value`."""
        ...


class RangeEncoder:
    """Writes bits; `size_bytes` is exact at any moment, `finish` never grows it."""

    __slots__ = ("code", "high", "low", "out", "reading")

    def __init__(self) -> None:
        self.reading = False
        self.low = 0
        self.high = _MASK
        self.code = 0
        self.out = bytearray()

    def next_byte(self) -> int:
        """Raise `AssertionError`: an encoder reads nothing."""
        raise AssertionError("an encoder reads nothing")

    def bit(self, bit: int, one: int) -> int:
        """Code one bit (see `Coder`)."""
        low, high = self.low, self.high
        middle = low + ((high - low) * one >> PROBABILITY_BITS)
        if bit:
            high = middle
        else:
            low = middle + 1
        while low ^ high < _TOP:
            self.out.append(high >> 24)
            low = low << 8 & _MASK
            high = high << 8 & _MASK | 0xFF
        self.low, self.high = low, high
        return bit

    def raw(self, value: int, bits: int) -> int:
        """Code bits at even odds, the highest first (see `Coder`)."""
        for shift in range(bits - 1, -1, -1):
            self.bit(value >> shift & 1, PROBABILITY_ONE >> 1)
        return value

    @property
    def size_bytes(self) -> int:
        """Return the exact length of what `finish` would return now."""
        return len(self.out) + len(_tail(self.low, self.high))

    def finish(self) -> bytes:
        """Return everything written, ended by the shortest tail that a decoder reading zeros beyond the end accepts."""
        return bytes(self.out) + _tail(self.low, self.high)


class RangeDecoder:
    """Reads bits from untrusted bytes: reading past the end and unread bytes are both a `MalformedError`."""

    __slots__ = ("_at", "_data", "_end", "code", "high", "low", "out", "reading")

    def __init__(self, data: bytes) -> None:
        self.reading = True
        self._data = data + b"\0" * _TAIL_BYTES_MAX
        self._end = len(data)
        self._at = _TAIL_BYTES_MAX
        self.low = 0
        self.high = _MASK
        self.code = int.from_bytes(self._data[:_TAIL_BYTES_MAX], "big")
        self.out = bytearray()

    def next_byte(self) -> int:
        """Return the next byte; raise `MalformedError` when there is none."""
        at = self._at
        if at >= len(self._data):
            raise MalformedError("a range-coded body ends before its last row")
        self._at = at + 1
        return self._data[at]

    def bit(self, bit: int, one: int) -> int:
        """Return the next bit; the given one is ignored (see `Coder`)."""
        low, high = self.low, self.high
        middle = low + ((high - low) * one >> PROBABILITY_BITS)
        if self.code <= middle:
            bit, high = 1, middle
        else:
            bit, low = 0, middle + 1
        while low ^ high < _TOP:
            low = low << 8 & _MASK
            high = high << 8 & _MASK | 0xFF
            self.code = self.code << 8 & _MASK | self.next_byte()
        self.low, self.high = low, high
        return bit

    def raw(self, value: int, bits: int) -> int:
        """Return the next `bits` bits as a number; the given one is ignored (see `Coder`)."""
        # Unrolled, since a gateway reads the time of every batch this way, and nothing else of it.
        value, low, high, code = 0, self.low, self.high, self.code
        for _ in range(bits):
            middle = low + (high - low >> 1)
            if code <= middle:
                value, high = value << 1 | 1, middle
            else:
                value, low = value << 1, middle + 1
            while low ^ high < _TOP:
                low = low << 8 & _MASK
                high = high << 8 & _MASK | 0xFF
                code = code << 8 & _MASK | self.next_byte()
        self.low, self.high, self.code = low, high, code
        return value

    def finish(self) -> None:
        """Check that the encoder of these bits would have ended with exactly these bytes."""
        if self._data[self._at - _TAIL_BYTES_MAX : self._end] != _tail(self.low, self.high):
            raise MalformedError("a range-coded body does not end where its last row does")


def _tail(low: int, high: int) -> bytes:
    # The shortest prefix that stays inside [low, high] when the reader continues it with zeros.
    for length in range(_TAIL_BYTES_MAX):
        mask = _MASK >> 8 * length
        value = low + mask & ~mask
        if value <= high:
            return value.to_bytes(4, "big")[:length]
    return low.to_bytes(4, "big")
