"""Listening for the classroom's HTTP service: who may connect, for how long, and how much of a head they may send.

aiohttp has no cap on connections; this counts them before a protocol is made for one. Deliberately absent: what is
answered (classroom.py), and logs of requests, which a classroom would fill the disk with.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from aiohttp import web

CONNECTIONS_MAX: Final = 256
IDLE_S_MAX: Final = 30.0  # also how long a request's head may take
_HEADER_BYTES_MAX: Final = 8 * 1024
_HEADERS_MAX: Final = 64


class ClassroomServer:
    """The listening service: `start`, `address`, `stop`."""

    def __init__(self, app: web.Application, listen: str) -> None:
        """`listen` is "address:port" or "[address]:port"; port 0 takes a free one."""
        host, _, port = listen.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        quiet = logging.getLogger("edge.classroom.http")
        quiet.setLevel(logging.CRITICAL + 1)  # strangers' broken requests must not fill the log
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=quiet,
            keepalive_timeout=IDLE_S_MAX,
            lingering_time=1.0,
            max_line_size=_HEADER_BYTES_MAX,
            max_field_size=_HEADER_BYTES_MAX,
            max_headers=_HEADERS_MAX,
            auto_decompress=False,
            shutdown_timeout=2.0,
        )
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; raise OSError if the address cannot be had."""
        await self._runner.setup()
        accept = self._runner.server
        assert accept is not None  # setup made it

        def connect() -> asyncio.BaseProtocol:
            return accept() if len(accept.connections) < CONNECTIONS_MAX else _Refuse()

        try:
            self._server = await asyncio.get_running_loop().create_server(connect, self._host, self._port)
        except OSError:
            await self._runner.cleanup()
            raise

    @property
    def address(self) -> tuple[str, int]:
        """Return the address and port that it listens on."""
        if self._server is None:
            raise RuntimeError("the classroom's service is not started")
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def stop(self) -> None:
        """Stop listening and let go of all connections."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()


class _Refuse(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
