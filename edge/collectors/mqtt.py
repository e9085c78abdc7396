"""Whatever publishes to an MQTT broker: one topic, and a place in its JSON, for each channel.

A retained message counts as said when it comes: a broker keeps them for those that were not there. Deliberately absent:
wildcards; a channel has one source.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, ClassVar, Final

import msgspec

from edge.collectors.base import ChannelSpec, Clock, Collector, CollectorSettings, Row, SourceError
from edge.collectors.declared import ChannelSettings, check_channels, check_pointer, json_at
from edge.collectors.latest import Latest, rows_of
from edge.collectors.mqtt_client import Message, MqttClient
from edge.collectors.stream import connect
from protocol.schema import CHANNELS_MAX

_PASSWORD_BYTES_MAX: Final = 1024


class BrokerSettings(CollectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the broker is, and as whom to come. `ca_file` is for a certificate of one's own, and implies `tls`."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)] = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 1883
    username: Annotated[str, msgspec.Meta(max_length=256)] = ""
    password_file: str | None = None
    tls: bool = False
    ca_file: str | None = None
    fresh_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 600.0

    def check(self) -> None:
        """Refuse a password without a user, which MQTT does not know."""
        if self.password_file is not None and not self.username:
            raise ValueError("password_file: needs a username")


class MqttChannel(ChannelSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A channel from a topic; `at` is a JSON pointer (`/battery/0/v`) unless the payload itself is the value."""

    topic: Annotated[str, msgspec.Meta(min_length=1, max_length=512, pattern=r"^[^#+\x00]+\Z")]
    at: Annotated[str, msgspec.Meta(max_length=256)] = ""


class MqttSettings(BrokerSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[collector.channels]]` tables say what to listen to."""

    channels: Annotated[tuple[MqttChannel, ...], msgspec.Meta(min_length=1, max_length=CHANNELS_MAX)]

    def check(self) -> None:
        """Refuse channels that do not hold."""
        super().check()
        check_channels(self.channels)
        for index, channel in enumerate(self.channels):
            if problem := check_pointer(channel.at):
                raise ValueError(f"channels[{index}].at: {problem}")


class MqttCollector(Collector[MqttSettings]):
    """Listens to one broker."""

    settings_type: ClassVar[type[CollectorSettings]] = MqttSettings

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return the channels declared."""
        return tuple(channel.spec(self.channel_name(channel.name)) for channel in self.settings.channels)

    @property
    def silence_hint(self) -> str:
        """Return what to look at if nothing comes."""
        return "nothing was published there: mosquitto_sub -v -t TOPIC shows what is"

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Yield the latest values each period; `SourceError` when the broker is gone or refuses."""
        latest = Latest(len(self.settings.channels), fresh_s=self.settings.fresh_s, clock=clock)
        async for row in rows_of(self._listen(latest, clock), latest, period_s=self.period_s, clock=clock):
            yield row

    async def _listen(self, latest: Latest, clock: Clock) -> None:
        async with open_broker(self.settings, clock) as client:
            await client.subscribe(sorted({channel.topic for channel in self.settings.channels}))
            async for message in client.messages():
                if message is not None:
                    self.take(message, latest)

    def take(self, message: Message, latest: Latest) -> None:
        """Take what a message says of the channels into `latest`."""
        document = read_payload(message.payload)
        for index, channel in enumerate(self.settings.channels):
            if channel.topic == message.topic:
                latest.put(index, channel.read(json_at(document, channel.at)))


@asynccontextmanager
async def open_broker(settings: BrokerSettings, clock: Clock) -> AsyncGenerator[MqttClient, None]:
    """Connect and introduce oneself; raise `SourceError` with what to do if that fails."""
    tls = await asyncio.to_thread(_tls_context, settings) if settings.tls or settings.ca_file else None
    password = await asyncio.to_thread(_read_password, settings.password_file)
    hint = "is the broker running, and does it listen there?"
    async with connect(settings.host, settings.port, clock=clock, default=hint, tls=tls) as stream:
        client = MqttClient(stream)
        await client.hello(f"digitruck-{settings.name}-{os.urandom(4).hex()}", settings.username, password)
        yield client


def read_payload(payload: bytes) -> object:
    """Return a payload's JSON, else its text; None for an empty one, which is how a retained value is deleted."""
    try:
        return msgspec.json.decode(payload) if payload else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return payload[:256].decode("utf-8", "replace")


def _tls_context(settings: BrokerSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(f"ca_file {settings.ca_file} cannot be used: {error}") from error


def _read_password(path: str | None) -> bytes:
    if path is None:
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(_PASSWORD_BYTES_MAX).rstrip(b"\r\n")
    except OSError as error:
        raise SourceError(f"cannot read password_file {path}: {error.strerror}") from error
