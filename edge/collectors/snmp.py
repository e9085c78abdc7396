"""A router, a switch or anything else with SNMP: interfaces by their names, and single objects by their numbers.

Version 2c with a community, or version 3 with a user whose keys are in files. Octets of interfaces (IF-MIB) go as KiB
since the last row; a counter that wraps goes on, one that began again counts from zero. Needs the extra `snmp`.
Deliberately absent: writing, traps, and MIB files; a vendor's signal strength is an `oid` that its manual names.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

from edge.collectors.base import ChannelSpec, Clock, Collector, CollectorSettings, Row, SourceError, each_period
from edge.collectors.declared import ChannelSettings, check_channels
from edge.collectors.extras import import_extra

_UPTIME: Final = "1.3.6.1.2.1.1.3.0"
_IF_NAME: Final = "1.3.6.1.2.1.31.1.1.1.1"
_IF_IN, _IF_OUT = "1.3.6.1.2.1.31.1.1.1.6", "1.3.6.1.2.1.31.1.1.1.10"
_OIDS_A_REQUEST: Final = 16  # an answer that stays within a datagram
_INTERFACES_MAX: Final = 512
_ANSWER_S: Final = 3.0
_TRIES: Final = 2
_COUNTER32: Final = 1 << 32

Oid = Annotated[str, msgspec.Meta(pattern=r"^\.?[0-2](\.[0-9]{1,10}){1,127}\Z")]


class SnmpChannel(ChannelSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A channel from one object; a `counter` gives what was added since the last row."""

    oid: Oid
    counter: bool = False


class SnmpSettings(CollectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`interfaces` are names as the router has them (`wwan0`); keys of version 3 are one line in a file."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 161
    community: Annotated[str, msgspec.Meta(max_length=255)] = "public"
    user: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] | None = None
    auth: Literal["md5", "sha", "sha256"] = "sha"
    auth_file: str | None = None
    privacy: Literal["des", "aes"] = "aes"
    privacy_file: str | None = None
    uptime: bool = True
    interfaces: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    channels: Annotated[tuple[SnmpChannel, ...], msgspec.Meta(max_length=28)] = ()

    def check(self) -> None:
        """Refuse nothing to read, keys without a user, and channels that do not hold."""
        if not (self.uptime or self.interfaces or self.channels):
            raise ValueError("channels: there is nothing to read")
        if self.user is None and (self.auth_file or self.privacy_file):
            raise ValueError("user: is missing; keys are a user's")
        if self.privacy_file and not self.auth_file:
            raise ValueError("auth_file: is missing; privacy needs it (RFC 3414)")
        if len(set(self.interfaces)) != len(self.interfaces):
            raise ValueError("interfaces: names one twice")
        check_channels(self.channels)


class Counter:
    """What a counter added since it was last read, in the channel's steps; rounding loses nothing over many rows."""

    def __init__(self, steps_a_count: float) -> None:
        self._steps_a_count = steps_a_count
        self._last: int | None = None
        self._total = 0

    def added(self, count: int | None) -> int | None:
        """Return the steps since the last call, None if either reading is missing."""
        last, self._last = self._last, count
        if last is None or count is None:
            return None
        if count >= last:
            more = count - last
        elif last < _COUNTER32 and last - count > _COUNTER32 // 2:
            more = count + _COUNTER32 - last
        else:
            more = count
        before = round(self._total * self._steps_a_count)
        self._total += more
        return round(self._total * self._steps_a_count) - before


class SnmpCollector(Collector[SnmpSettings]):
    """Asks one agent."""

    settings_type: ClassVar[type[CollectorSettings]] = SnmpSettings

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return uptime, two channels for each interface, and those declared."""
        specs = [ChannelSpec(self.channel_name("uptime"), "h", 10, 0, 0)] if self.settings.uptime else []
        for interface in self.settings.interfaces:
            name = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in interface)
            specs.append(ChannelSpec(self.channel_name(f"{name}.received"), "KiB", nominal=50, typical_change=40))
            specs.append(ChannelSpec(self.channel_name(f"{name}.sent"), "KiB", nominal=10, typical_change=8))
        return (*specs, *(each.spec(self.channel_name(each.name)) for each in self.settings.channels))

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Yield a row each period; `SourceError` when the agent is gone, refuses or lacks an interface."""
        library = await import_extra("pysnmp.hlapi.v3arch.asyncio", "snmp")
        agent = await asyncio.to_thread(_Agent, self.settings, library)  # it reads the MIBs it needs
        try:
            octets = await self._octet_oids(agent)
            counters = [Counter(1 / 1024) for _ in octets]
            own = [Counter(each.factor * each.scale) if each.counter else None for each in self.settings.channels]
            start = [_UPTIME] if self.settings.uptime else []
            asked = [*start, *octets, *(each.oid.lstrip(".") for each in self.settings.channels)]
            async for _ in each_period(clock, self.period_s):
                said = await agent.get(asked)
                values = [_uptime(said.pop(0))] if start else []
                values += [counter.added(_integer(said.pop(0))) for counter in counters]
                for each, counter, value in zip(self.settings.channels, own, said, strict=True):
                    values.append(each.read(value) if counter is None else counter.added(_integer(value)))
                yield Row(tuple(values))
        finally:
            agent.close()

    async def _octet_oids(self, agent: _Agent) -> list[str]:
        if not self.settings.interfaces:
            return []
        numbers = await agent.walk(_IF_NAME)
        found: list[str] = []
        for interface in self.settings.interfaces:
            number = next((oid.rpartition(".")[2] for oid, name in numbers if name == interface), None)
            if number is None:
                names = ", ".join(str(name)[:20] for _, name in numbers[:16])
                raise SourceError(f"{self.settings.host} has no interface {interface!r}; it has: {names}")
            found += [f"{_IF_IN}.{number}", f"{_IF_OUT}.{number}"]
        return found


class _Agent:
    """pysnmp, less what is not used of it."""

    def __init__(self, settings: SnmpSettings, library: Any) -> None:
        self._settings = settings
        self._library = library
        self._engine = library.SnmpEngine()
        self._who: Any = None
        self._target: Any = None

    async def get(self, oids: Sequence[str]) -> list[object]:
        """Return the value of each object: an int, a text, or None where the agent has none."""
        said: list[object] = []
        for begin in range(0, len(oids), _OIDS_A_REQUEST):
            part = oids[begin : begin + _OIDS_A_REQUEST]
            bindings = await self._ask(self._library.get_cmd, part)
            if [str(name) for name, _ in bindings] != list(part):
                raise SourceError(f"{self._settings.host} answered another question")
            said += [_plain(value) for _, value in bindings]
        return said

    async def walk(self, root: str) -> list[tuple[str, object]]:
        """Return (number, value) of the objects below `root`, at most as many as a router has interfaces."""
        found: list[tuple[str, object]] = []
        last = root
        while len(found) < _INTERFACES_MAX:
            ((name, value),) = await self._ask(self._library.next_cmd, [last])
            if not str(name).startswith(root + ".") or str(name) == last:
                break
            last = str(name)
            found.append((last, _plain(value)))
        return found

    def close(self) -> None:
        """Close its socket."""
        self._engine.close_dispatcher()

    async def _ask(self, command: Any, oids: Sequence[str]) -> list[tuple[Any, Any]]:
        library = self._library
        try:
            if self._target is None:
                place = self._settings.host, self._settings.port
                self._who = await asyncio.to_thread(_identity, self._settings, library)
                self._target = await library.UdpTransportTarget.create(place, timeout=_ANSWER_S, retries=_TRIES - 1)
            objects = [library.ObjectType(library.ObjectIdentity(oid)) for oid in oids]
            failed, refused, _, bindings = await command(
                self._engine, self._who, self._target, library.ContextData(), *objects, lookupMib=False
            )
        except SourceError:
            raise
        except Exception as error:  # what a stranger's bytes make of a library's decoder
            raise SourceError(f"{self._settings.host}: {error}") from error
        if failed is not None:
            hint = "is SNMP on, the community or the user right?"
            raise SourceError(f"{self._settings.host}:{self._settings.port}: {failed}; {hint}")
        if refused:
            raise SourceError(f"{self._settings.host} refuses: {refused.prettyPrint()}")
        if len(bindings) != len(oids):
            raise SourceError(f"{self._settings.host} answered another question")
        return [(name, value) for name, value in bindings]


def _identity(settings: SnmpSettings, library: Any) -> Any:
    if settings.user is None:
        return library.CommunityData(settings.community, mpModel=1)
    auth = {"md5": library.USM_AUTH_HMAC96_MD5, "sha": library.USM_AUTH_HMAC96_SHA}
    auth["sha256"] = library.USM_AUTH_HMAC192_SHA256
    privacy = {"des": library.USM_PRIV_CBC56_DES, "aes": library.USM_PRIV_CFB128_AES}
    return library.UsmUserData(
        settings.user,
        authKey=_read_key(settings.auth_file),
        privKey=_read_key(settings.privacy_file),
        authProtocol=auth[settings.auth] if settings.auth_file else library.USM_AUTH_NONE,
        privProtocol=privacy[settings.privacy] if settings.privacy_file else library.USM_PRIV_NONE,
    )


def _read_key(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(1024).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read the key {path}: {error}") from error


def _plain(value: Any) -> object:
    """Return an SNMP value as an int or a text, None for noSuchObject and the like."""
    kind = type(value).__name__
    if kind in ("NoSuchObject", "NoSuchInstance", "EndOfMibView", "Null"):
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        return bytes(value)[:256].decode("utf-8", "replace") if hasattr(value, "asOctets") else str(value)[:256]


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _uptime(value: object) -> int | None:
    """Return hundredths of a second as tenths of an hour: a restart shows, and most rows repeat the last."""
    return value // 36_000 if isinstance(value, int) else None
