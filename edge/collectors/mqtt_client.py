"""A subscriber to an MQTT broker: version 3.1.1 (OASIS, 2014), QoS 0, one clean session a connection.

Small on purpose: the usual libraries hold whatever packet a broker sends, up to 256 MB; here a payload beyond
`PAYLOAD_BYTES_MAX` is read past and forgotten. Deliberately absent: publishing with receipts, wills, sessions that are
kept; the latest value is what counts, and a broker that is asked again has it.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

from edge.collectors.base import SourceError
from edge.collectors.stream import ANSWER_S_MAX, Stream

KEEPALIVE_S: Final = 60
PAYLOAD_BYTES_MAX: Final = 64 * 1024
_TOPIC_BYTES_MAX: Final = 1024
BEAT_S: Final = KEEPALIVE_S / 2
_CONNACK, _PUBLISH, _SUBACK = 2, 3, 9
_SUBSCRIPTION_REFUSED: Final = 0x80
_PINGREQ: Final = b"\xc0\x00"

# Section 3.2.2.3: what a broker says no with.
_REFUSALS: Final = {
    1: "it wants another version of MQTT than 3.1.1",
    2: "it does not like the client's name",
    3: "it is not available",
    4: "the user name or password is wrong",
    5: "this user is not allowed: set username and password_file",
}


@dataclass(frozen=True, slots=True)
class Message:
    """What was published on a topic; `payload` is empty if it was too large to be a measurement."""

    topic: str
    payload: bytes


class MqttClient:
    """Speaks over one connection. `messages` reads; whoever iterates it also keeps the connection alive."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def hello(self, client: str, username: str = "", password: bytes = b"") -> None:
        """Introduce this side; `SourceError` with the broker's reason if it refuses."""
        flags = 0x02 | (0x80 if username else 0) | (0x40 if username and password else 0)
        body = _text(b"MQTT") + bytes([4, flags]) + struct.pack(">H", KEEPALIVE_S) + _text(client.encode())
        if username:
            body += _text(username.encode()) + (_text(password) if password else b"")
        await self._stream.send(_packet(0x10, body))
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                kind, length = await self._head(0)
                if kind >> 4 != _CONNACK or length != 2:
                    raise SourceError("what answers is not an MQTT broker")
                code = (await self._stream.exactly(2))[1]
        except TimeoutError as error:
            raise SourceError(f"the broker did not answer within {ANSWER_S_MAX:g} s") from error
        if code:
            raise SourceError(f"the broker refuses: {_REFUSALS.get(code, f'code {code}')}")

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Ask for topics; whether the broker grants them shows in `messages`."""
        body = b"\x00\x01" + b"".join(_text(topic.encode()) + b"\x00" for topic in topics)
        await self._stream.send(_packet(0x82, body))

    async def publish(self, message: Message) -> None:
        """Publish once, without a receipt."""
        await self._stream.send(_packet(0x30, _text(message.topic.encode()) + message.payload))

    async def messages(self) -> AsyncGenerator[Message | None, None]:
        """Yield what is published, for ever, and None each `BEAT_S`; `SourceError` when the broker is gone or refuses.

        At each beat it is pinged: one that sent nothing from one beat to the next is gone.
        """
        loop = asyncio.get_running_loop()
        beat_s, heard = loop.time() + BEAT_S, True
        while True:
            if loop.time() >= beat_s:
                if not heard:
                    raise SourceError("the broker no longer answers pings")
                beat_s, heard = loop.time() + BEAT_S, False
                await self._stream.send(_PINGREQ)
                yield None
            try:
                async with asyncio.timeout_at(beat_s):
                    first = (await self._stream.exactly(1))[0]
            except TimeoutError:
                continue
            heard = True
            kind, length = await self._head(first)
            if kind >> 4 == _PUBLISH:
                if (message := await self._published(kind, length)) is not None:
                    yield message
            elif kind >> 4 == _SUBACK and length <= PAYLOAD_BYTES_MAX:
                if _SUBSCRIPTION_REFUSED in (await self._stream.exactly(length))[2:]:
                    raise SourceError("the broker does not let this user read a topic")
            else:
                await self._stream.skip(length)

    async def _published(self, kind: int, length: int) -> Message | None:
        if length < 2:
            raise SourceError("the broker sent a packet that is too short")
        topic_length = int.from_bytes(await self._stream.exactly(2))
        # A QoS above the one subscribed for has an identifier, and would want an answer.
        head = 2 + topic_length + (2 if kind & 0x06 else 0)
        if head > length:
            raise SourceError("the broker sent a packet whose topic does not fit")
        if topic_length > _TOPIC_BYTES_MAX:
            await self._stream.skip(length - 2)
            return None
        topic = (await self._stream.exactly(head - 2))[:topic_length].decode("utf-8", "replace")
        if length - head > PAYLOAD_BYTES_MAX:
            await self._stream.skip(length - head)
            return Message(topic, b"")
        return Message(topic, await self._stream.exactly(length - head))

    async def _head(self, first: int) -> tuple[int, int]:
        """Return a packet's first byte, read here if it is 0, and its remaining length (section 2.2.3)."""
        kind = first or (await self._stream.exactly(1))[0]
        length = 0
        for shift in (0, 7, 14, 21):
            byte = (await self._stream.exactly(1))[0]
            length |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return kind, length
        raise SourceError("what answers is not an MQTT broker")


def _text(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _packet(kind: int, body: bytes) -> bytes:
    length, rest = bytearray(), len(body)
    while rest >= 0x80:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return bytes([kind]) + bytes(length) + body
