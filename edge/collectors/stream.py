"""A TCP connection to an instrument that is not trusted: bounded in time, in memory and in bytes a second.

Whatever goes wrong with it is a `SourceError` that names the address. A source that sends more than the rate is read
more slowly, which TCP passes on to it. Deliberately absent: reconnecting; the supervisor starts the collector again.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from edge.collectors.base import Clock, SourceError

CONNECT_S_MAX: Final = 10.0
ANSWER_S_MAX: Final = 10.0
LINE_BYTES_MAX: Final = 64 * 1024
BYTES_PER_S_MAX: Final = 64 * 1024
_SKIP_BYTES: Final = 16 * 1024


class Stream:
    """Reads and writes one open connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: str, clock: Clock) -> None:
        self._reader = reader
        self._writer = writer
        self._place = place
        self._clock = clock
        self._second_s = clock.monotonic()
        self._second_bytes = 0

    async def line(self) -> bytes:
        """Return a line without its end; `SourceError` if it is longer than `LINE_BYTES_MAX` or the source is gone."""
        try:
            line = await self._reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            raise SourceError(f"{self._place} sent a line of more than {LINE_BYTES_MAX} bytes") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise SourceError(f"{self._place} broke off") from error
        await self._took(len(line))
        return line.rstrip(b"\r\n")

    async def exactly(self, count: int) -> bytes:
        """Return the next `count` bytes, which the caller has bounded."""
        try:
            data = await self._reader.readexactly(count)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise SourceError(f"{self._place} broke off") from error
        await self._took(count)
        return data

    async def skip(self, count: int) -> None:
        """Read `count` bytes and forget them, however many they are."""
        while count:
            count -= len(await self.exactly(min(count, _SKIP_BYTES)))

    async def send(self, data: bytes) -> None:
        """Write `data` and wait until the system has taken it."""
        try:
            self._writer.write(data)
            async with asyncio.timeout(ANSWER_S_MAX):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise SourceError(f"{self._place} takes no bytes any more") from error

    async def _took(self, count: int) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._second_s >= 1.0:
            self._second_s, self._second_bytes = now_s, 0
        self._second_bytes += count
        if self._second_bytes > BYTES_PER_S_MAX:
            self._second_bytes = 0
            await self._clock.sleep(1.0)


@asynccontextmanager
async def connect(
    host: str, port: int, *, clock: Clock, default: str = "", tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Stream, None]:
    """Open a connection and close it in the end; `default` says what to look at if nobody listens."""
    place = f"{host}:{port}"
    try:
        async with asyncio.timeout(CONNECT_S_MAX):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=LINE_BYTES_MAX)
    except TimeoutError as error:
        raise SourceError(f"{place} does not answer; {default}".rstrip("; ")) from error
    except ssl.SSLError as error:
        raise SourceError(f"{place}: TLS failed: {error.reason or error}") from error
    except OSError as error:
        # asyncio words its own "Connect call failed"; a name that is not found has a negative number.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise SourceError(f"cannot connect to {place}: {reason}; {default}".rstrip("; ")) from error
    try:
        yield Stream(reader, writer, place, clock)
    finally:
        writer.transport.abort()  # nothing is owed to the source, and a close that waits for it could hang
