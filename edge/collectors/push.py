"""For programs that would rather tell than be asked: a small HTTP server that takes a JSON object by POST.

    curl -d '{"door": 1}' http://127.0.0.1:8090/

Each channel names its place in the object; the latest value of each goes into a row each period. Whatever is not on the
loopback interface must show a token. Scripts that have a whole row of their own use the daemon's POST /v1/records
instead. Deliberately absent: TLS; the port is for this computer and its classroom.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, ClassVar, Final

import msgspec
from aiohttp import web

from edge.collectors.base import ChannelSpec, Clock, Collector, CollectorSettings, Row, SourceError
from edge.collectors.declared import ChannelSettings, check_channels, check_pointer, json_at
from edge.collectors.latest import Latest, rows_of
from protocol.schema import CHANNELS_MAX

BODY_BYTES_MAX: Final = 64 * 1024
CONNECTIONS_MAX: Final = 32
_READ_S_MAX: Final = 10.0
_TOKEN_BYTES_MIN: Final = 16


class PushChannel(ChannelSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A channel from a place in the object; `at` is a JSON pointer, by default a slash and the name."""

    at: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None

    @property
    def pointer(self) -> str:
        """Return where its value is."""
        return f"/{self.name}" if self.at is None else self.at


class PushSettings(CollectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`listen` is address:port; `token_file` holds what `Authorization: Bearer` must bring."""

    listen: Annotated[str, msgspec.Meta(pattern=r"^(\[[0-9a-fA-F:]+\]|[0-9.]+):[0-9]{1,5}\Z")] = "127.0.0.1:8090"
    token_file: str | None = None
    fresh_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 600.0
    channels: Annotated[tuple[PushChannel, ...], msgspec.Meta(min_length=1, max_length=CHANNELS_MAX)]

    @property
    def address(self) -> tuple[str, int]:
        """Return where to listen."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    def check(self) -> None:
        """Refuse an open door: an address that others reach needs a token."""
        host, port = self.address
        try:
            is_loopback = ipaddress.ip_address(host).is_loopback
        except ValueError as error:
            raise ValueError(f"listen: {error}") from error
        if port > 65_535:
            raise ValueError("listen: there is no such port")
        if not is_loopback and self.token_file is None:
            raise ValueError("token_file: is needed where others can reach the port; or listen on 127.0.0.1")
        check_channels(self.channels)
        for index, channel in enumerate(self.channels):
            if problem := check_pointer(channel.pointer):
                raise ValueError(f"channels[{index}].at: {problem}")


class PushCollector(Collector[PushSettings]):
    """Listens on one port."""

    settings_type: ClassVar[type[CollectorSettings]] = PushSettings

    def __init__(self, settings: PushSettings) -> None:
        super().__init__(settings)
        self.port: int | None = None  # the one that was bound, while it is

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return the channels declared."""
        return tuple(channel.spec(self.channel_name(channel.name)) for channel in self.settings.channels)

    @property
    def silence_hint(self) -> str:
        """Return what to look at if nothing comes."""
        return f"nobody told anything; try: curl -d JSON http://{self.settings.listen}/"

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Yield the latest values each period; `SourceError` when the port is taken or the token unreadable."""
        token = await asyncio.to_thread(read_token, self.settings.token_file)
        latest = Latest(len(self.settings.channels), fresh_s=self.settings.fresh_s, clock=clock)
        async with self._serving(latest, token):
            async for row in rows_of(asyncio.Event().wait(), latest, period_s=self.period_s, clock=clock):
                yield row

    @asynccontextmanager
    async def _serving(self, latest: Latest, token: bytes | None) -> AsyncGenerator[None, None]:
        async def take(request: web.BaseRequest) -> web.Response:
            if request.method not in ("POST", "PUT"):
                return web.Response(status=405, text="POST a JSON object\n", headers={"Allow": "POST"})
            shown = request.headers.get("Authorization", "").removeprefix("Bearer ").encode("utf-8", "replace")
            if token is not None and not hmac.compare_digest(shown, token):
                return web.Response(status=401, text="the token is missing or wrong\n")
            return await self._take(request, latest)

        def admit() -> asyncio.BaseProtocol:
            # Whoever keeps connections open without a word loses the oldest, and keeps nobody else out.
            if len(server.connections) >= CONNECTIONS_MAX:
                server.connections[0].force_close()
            return server()

        server = web.Server(take, access_log=None, keepalive_timeout=_READ_S_MAX, lingering_time=0, max_line_size=4096)
        host, port = self.settings.address
        try:
            listening = await asyncio.get_running_loop().create_server(admit, host, port, backlog=CONNECTIONS_MAX)
        except OSError as error:
            raise SourceError(f"cannot listen on {self.settings.listen}: {error.strerror or error}") from error
        try:
            self.port = listening.sockets[0].getsockname()[1]
            yield
        finally:
            self.port = None
            listening.close()
            await server.shutdown(1.0)

    async def _take(self, request: web.BaseRequest, latest: Latest) -> web.Response:
        if (request.content_length or 0) > BODY_BYTES_MAX:
            return web.Response(status=413, text=f"at most {BODY_BYTES_MAX} bytes\n")
        body = bytearray()
        try:
            async with asyncio.timeout(_READ_S_MAX):
                async for chunk in request.content.iter_chunked(8192):
                    body += chunk
                    if len(body) > BODY_BYTES_MAX:
                        return web.Response(status=413, text=f"at most {BODY_BYTES_MAX} bytes\n")
            document = msgspec.json.decode(body)
        except TimeoutError:
            return web.Response(status=408, text="the body did not come\n")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return web.Response(status=400, text=f"not JSON: {error}\n")
        if not isinstance(document, dict):
            return web.Response(status=400, text="not a JSON object\n")
        taken = 0
        for index, channel in enumerate(self.settings.channels):
            said = json_at(document, channel.pointer)
            if said is not None:
                value = channel.read(said)
                latest.put(index, value)
                taken += value is not None
        if not taken:
            wanted = ", ".join(channel.pointer for channel in self.settings.channels)
            return web.Response(status=422, text=f"no number in its range at any of: {wanted}\n")
        return web.Response(status=204)


def read_token(path: str | None) -> bytes | None:
    """Return the token of a file; raise `SourceError` if it cannot be read or is too short to be a secret."""
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            token = file.read(4096).strip()
    except OSError as error:
        raise SourceError(f"cannot read token_file {path}: {error.strerror}") from error
    if len(token) < _TOKEN_BYTES_MIN:
        raise SourceError(f"token_file {path} must hold at least {_TOKEN_BYTES_MIN} characters")
    return token
