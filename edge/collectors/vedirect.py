"""Solar and battery figures from Victron's VE.Direct port, or from a recording of one played at its pace.

The source talks once a second; the latest value of each field goes into a row each period. Values that the hardware
cannot have are taken as missing, a field that stopped coming is missing too, and a port that sends far more than
19,200 baud allow is throttled. Deliberately absent: the parser (vedirect_frame.py) and anything written to the port.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

import msgspec

from edge.collectors.base import ChannelSpec, Clock, Collector, CollectorSettings, Row, SourceError, round_ratio
from edge.collectors.blocking import BlockingCalls
from edge.collectors.vedirect_fields import FIELDS, PRODUCTS, FieldSpec, Product
from edge.collectors.vedirect_frame import Frame, FrameParser, restore_text_dump

BAUD: Final = 19_200
_READ_BYTES: Final = 4096
_BYTES_PER_S_MAX: Final = 16 * 1024  # eight times what the line can carry is a fault or an attack
_RECORDING_BYTES_MAX: Final = 16 * 1024 * 1024
_FIELD_AGE_S_MAX: Final = 10.0
_FIRST_ROW_WAIT_S: Final = 3.0  # battery monitors spread their fields over two frames
_NUMBER: Final = re.compile(r"-?[0-9]{1,12}")
_HEX_NUMBER: Final = re.compile(r"0x[0-9A-Fa-f]{1,8}")
_WORDS: Final = {"ON": 1, "OFF": 0, "On": 1, "Off": 0}


class VeDirectSettings(CollectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Either `port` (a serial port's path, or socket://host:port of a serial server) or `file` (a recording).

    `product` chooses the usual fields, `fields` others by their VE.Direct labels. A recording plays `frames_per_s`
    and, unless `loop` is false, for ever; `text_dump` says that it was saved as text (see restore_text_dump).
    """

    port: str | None = None
    file: str | None = None
    product: Product = "mppt"
    fields: Annotated[tuple[str, ...], msgspec.Meta(max_length=48)] = ()
    frames_per_s: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    loop: bool = True
    text_dump: bool = False

    def check(self) -> None:
        """Refuse two sources or none, and fields that VE.Direct does not have."""
        if (self.port is None) == (self.file is None):
            raise ValueError("port: give either port or file")
        # pyserial has more kinds of address, some of which write files.
        if self.port is not None and not self.port.startswith(("/", "socket://")):
            raise ValueError("port: must be a path or socket://host:port")
        if self.text_dump and self.file is None:
            raise ValueError("text_dump: is for a file only")
        for index, label in enumerate(self.fields):
            if label not in FIELDS:
                raise ValueError(f"fields[{index}]: no field is called {label[:20]!r}; there are: {', '.join(FIELDS)}")
        if len(set(self.fields)) != len(self.fields):
            raise ValueError("fields: names one twice")


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last value of a field and when it came; None where the source says that it does not know."""

    value: int | None
    at_s: float


class VeDirectCollector(Collector[VeDirectSettings]):
    """Listens to one VE.Direct port."""

    settings_type: ClassVar[type[CollectorSettings]] = VeDirectSettings

    def __init__(self, settings: VeDirectSettings) -> None:
        super().__init__(settings)
        labels = settings.fields or PRODUCTS[settings.product]
        self._fields = {label: FIELDS[label] for label in labels}
        self._blocking = BlockingCalls(settings.name)

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return a channel for each chosen field."""
        return tuple(
            ChannelSpec(self.channel_name(field.name), field.unit, field.scale, field.nominal, field.typical_change)
            for field in self._fields.values()
        )

    @property
    def silence_hint(self) -> str:
        """Return what to look at if nothing comes."""
        return "nothing arrives that is VE.Direct: is the cable in the right port, is anything else reading it?"

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Yield the latest values each period; `SourceError` when the port or file fails; ends if a file is used up."""
        latest: dict[str, _Seen] = {}
        first_by_s, due_s = math.inf, -math.inf
        frames = self._port_frames(clock) if self.settings.port is not None else self._file_frames(clock)
        async with aclosing(frames):
            async for frame in frames:
                now_s = clock.monotonic()
                for field in frame.fields:
                    if spec := self._fields.get(field.label):
                        latest[field.label] = _Seen(read_value(field.value, spec), now_s)
                first_by_s = min(first_by_s, now_s + _FIRST_ROW_WAIT_S)
                if now_s >= due_s and (len(latest) == len(self._fields) or now_s >= first_by_s):
                    # On a grid from the first row on; a pause of the source does not make rows up afterwards.
                    due_s = now_s + self.period_s if now_s - due_s > self.period_s else due_s + self.period_s
                    yield self._row(latest, now_s)

    def _row(self, latest: dict[str, _Seen], now_s: float) -> Row:
        fresh = {label: seen.value for label, seen in latest.items() if now_s - seen.at_s <= _FIELD_AGE_S_MAX}
        return Row(tuple(fresh.get(label) for label in self._fields))

    async def _port_frames(self, clock: Clock) -> AsyncGenerator[Frame, None]:
        port = await self._blocking.call(lambda: open_port(self.settings.port or ""))
        try:
            parser = FrameParser()
            second_s, second_bytes = clock.monotonic(), 0
            while True:
                data = await read_port(port)
                for frame in parser.feed(data):
                    yield frame
                if clock.monotonic() - second_s >= 1.0:
                    second_s, second_bytes = clock.monotonic(), 0
                second_bytes += len(data)
                if second_bytes > _BYTES_PER_S_MAX:
                    await clock.sleep(1.0)
                    port.reset_input_buffer()
                    parser = FrameParser()
        except OSError as error:
            raise SourceError(f"{self.settings.port} broke off: {error}") from error
        finally:
            await self._blocking.call(port.close)

    async def _file_frames(self, clock: Clock) -> AsyncGenerator[Frame, None]:
        wire = await self._blocking.call(lambda: read_recording(self.settings.file or "", self.settings.text_dump))
        gap_s = 1.0 / self.settings.frames_per_s
        due_s = clock.monotonic()
        while True:
            parser = FrameParser(at_start=True)
            played = False
            for begin in range(0, len(wire), _READ_BYTES):
                for frame in parser.feed(wire[begin : begin + _READ_BYTES]):
                    await clock.sleep(max(0.0, due_s - clock.monotonic()))
                    due_s += gap_s
                    played = True
                    yield frame
            if not played:
                raise SourceError(f"{self.settings.file} holds no VE.Direct frame whose checksum is right")
            if not self.settings.loop:
                return


def read_value(text: str, spec: FieldSpec) -> int | None:
    """Return the channel's scaled integer for a field's text; None for no number and for what cannot be."""
    if text in _WORDS:
        value = _WORDS[text]
    elif _NUMBER.fullmatch(text):
        value = int(text)
    elif _HEX_NUMBER.fullmatch(text):
        value = int(text, 16)
    else:
        return None
    return round_ratio(value, 1, spec.per) if spec.minimum <= value <= spec.maximum else None


def open_port(path: str) -> Any:
    """Return an open serial port that does not block; raise `SourceError` with what to do."""
    try:
        import serial
    except ImportError as error:
        raise SourceError("serial ports need the extra: pip install 'digitruck[devices]'") from error
    try:
        port = serial.serial_for_url(path, baudrate=BAUD, timeout=0, exclusive=True)
        port.fileno()  # what the loop waits on
    except (OSError, ValueError, AttributeError) as error:
        raise SourceError(f"cannot open {path}: {error}") from error
    return port


async def read_port(port: Any) -> bytes:
    """Wait until there are bytes and return some; raise OSError when the port is gone."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    descriptor = port.fileno()

    def wake() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await readable
    finally:
        loop.remove_reader(descriptor)
    data: bytes = port.read(_READ_BYTES)
    if not data:
        raise OSError("nothing to read from it any more")
    return data


def read_recording(path: str, text_dump: bool) -> bytes:
    """Return the wire's bytes of a recording; raise `SourceError` if it is absent, too large or unreadable."""
    try:
        if not os.path.isfile(path):  # a pipe would hang
            raise SourceError(f"{path} is not a file")
        with open(path, "rb") as file:
            data = file.read(_RECORDING_BYTES_MAX + 1)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _RECORDING_BYTES_MAX:
        raise SourceError(f"{path} is larger than {_RECORDING_BYTES_MAX} bytes")
    return restore_text_dump(data) if text_dump else data
