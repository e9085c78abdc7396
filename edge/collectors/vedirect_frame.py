"""VE.Direct text frames (Victron's "VE.Direct Protocol", text mode): bytes in, checked frames out.

A frame is a run of CR LF label TAB value, ended by the label `Checksum` whose value is the one byte that makes the sum
of all the frame's bytes 0 modulo 256. HEX records (`:` to LF) may stand between frames and are skipped. Eight bits
of checksum let one damaged frame in 256 through, so a frame only counts when its first byte follows the end of
another: a frame joined midway never does. Deliberately absent: HEX mode, and what the values mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

# The document gives 9 and 33 bytes with the end mark and 22 fields in a frame; newer firmware sends some more.
LABEL_BYTES_MAX: Final = 16
VALUE_BYTES_MAX: Final = 48
FIELDS_MAX: Final = 40
HEX_BYTES_MAX: Final = 512
_CHECKSUM_LABEL: Final = b"Checksum"


@dataclass(frozen=True, slots=True)
class Field:
    """One label and value, printable ASCII."""

    label: str
    value: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The fields of one frame whose checksum held, in the order received."""

    fields: tuple[Field, ...]


class _State(Enum):
    LOST = auto()  # waits for the end of a frame
    START = auto()  # exactly between two frames
    LABEL = auto()
    VALUE = auto()
    SUM = auto()  # the next byte is the checksum
    HEX = auto()


class FrameParser:
    """Feed it bytes in any pieces. `dropped` counts frames that did not hold; memory is bounded by the limits above.

    `at_start` says that the first byte begins a frame (a recording); a serial port is joined midway.
    """

    def __init__(self, *, at_start: bool = False) -> None:
        self.dropped = 0
        self._state = _State.START if at_start else _State.LOST
        self._tail = b""  # while lost: the last bytes, to find the end of a frame in
        self._begin()

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes."""
        frames: list[Frame] = []
        for byte in data:
            if self._step(byte):
                frames.append(Frame(tuple(self._fields)))
                self._begin()
        return frames

    def _begin(self) -> None:
        self._sum = 0
        self._fields: list[Field] = []
        self._label = bytearray()
        self._value = bytearray()
        self._hex_bytes = 0

    def _lose(self) -> None:
        self.dropped += 1
        self._begin()
        self._tail = b""
        self._state = _State.LOST

    def _step(self, byte: int) -> bool:
        """Take one byte; return whether it completes a frame that holds."""
        if self._state is _State.LOST:
            self._tail = (self._tail + bytes([byte]))[-len(_CHECKSUM_LABEL) - 2 :]
            if self._tail[:-1] == _CHECKSUM_LABEL + b"\t":
                self._tail = b""
                self._state = _State.START
            return False
        if self._state is _State.HEX:
            self._hex_bytes += 1
            if byte == 0x0A:
                self._begin()
                self._state = _State.START
            elif self._hex_bytes > HEX_BYTES_MAX:
                self._lose()
            return False
        if byte == 0x3A and self._state is not _State.SUM:  # ":" begins a HEX record; a frame it cuts is lost
            self.dropped += bool(self._fields or self._label)
            self._begin()
            self._state = _State.HEX
            return False
        self._sum = (self._sum + byte) & 0xFF
        if self._state is _State.SUM:
            self._state = _State.START
            if self._sum == 0 and self._fields:
                return True
            # The place is still known: the next frame begins here.
            self.dropped += 1
            self._begin()
            return False
        return self._text(byte)

    def _text(self, byte: int) -> bool:
        if self._state is _State.VALUE:
            if byte == 0x0D:
                self._fields.append(Field(self._label.decode("ascii"), self._value.decode("ascii")))
                self._label, self._value = bytearray(), bytearray()
                self._state = _State.START
            elif not 0x20 <= byte < 0x7F or len(self._value) >= VALUE_BYTES_MAX:
                self._lose()
            else:
                self._value.append(byte)
        elif self._state is _State.LABEL:
            if byte == 0x09:
                done = bytes(self._label) == _CHECKSUM_LABEL
                self._state = _State.SUM if done else _State.VALUE
            elif not 0x20 < byte < 0x7F or len(self._label) >= LABEL_BYTES_MAX:
                self._lose()
            else:
                self._label.append(byte)
        elif byte == 0x0A:
            self._state = _State.LABEL
            if len(self._fields) >= FIELDS_MAX:
                self._lose()
        elif byte != 0x0D:
            self._lose()
        return False


_TEXT_END: Final = re.compile(rb"(?<=\nChecksum\t)(\xef\xbf\xbd|[\x00-\x7f])")


def restore_text_dump(dump: bytes) -> bytes:
    """Return the bytes on the wire for a recording that was saved as text: CR LF became LF, and checksums above 0x7F
    became U+FFFD.

    Line ends are put back; a checksum that is gone is computed, one that survived stays and is verified as ever. Such
    recordings are common (screen logs); their lost checksums prove nothing, so use raw captures where there are any.
    """
    frames: list[bytes] = []
    begin = 0
    text = dump.replace(b"\r\n", b"\n")
    for match in _TEXT_END.finditer(text):
        frame = text[begin : match.start()]
        begin = match.end()
        skipped = b""
        while frame.startswith(b":"):  # HEX records stay as they are
            record, _, frame = frame.partition(b"\n")
            skipped += record + b"\n"
        body = (frame if frame.startswith(b"\n") else b"\n" + frame).replace(b"\n", b"\r\n")
        kept = match[1]
        frames.append(skipped + body + (kept if len(kept) == 1 else bytes([-sum(body) & 0xFF])))
    return b"".join(frames)
