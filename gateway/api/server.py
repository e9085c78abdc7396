"""The listening socket: connection caps, a deadline for headers, and no decompression of requests.

The HTTP library has no cap on connections and no deadline for a request's headers but its keep-alive time, which it
starts with the connection; so `idle_s` is both. Errors that it finds before a request exists (bytes that are not HTTP)
are answered as problems, too. TLS ends here if an `ssl.SSLContext` is given; otherwise bind to loopback and put a
reverse proxy in front (then limits by address count the proxy: forwarded addresses are deliberately not believed).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from typing import Any

import structlog
from aiohttp import web

from gateway.api.limits import ApiLimits
from gateway.api.problem import Problem, from_http_exception, problem_body, problem_response
from gateway.api.ratelimit import address_key

_log = structlog.get_logger(__name__)


class _Connection(web.RequestHandler):
    """A connection that answers unreadable requests with a problem, and does not log what strangers sent."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer is already under way")
        _log.info("api.unreadable", status=status, error=type(exc).__name__)
        detail = "this is not a request that can be read" if status == 400 else "something went wrong here"
        response = problem_response(Problem(status if status in (400, 500) else 500, detail, close=True))
        response.headers["Server"] = "digitruck"
        return response


class _Server(web.Server):
    """A server that holds at most so many connections, in all and from one address."""

    def __init__(self, inner: web.Server, limits: ApiLimits, **settings: Any) -> None:
        super().__init__(self._answer, request_factory=inner.request_factory, **settings)
        self._settings = settings
        self._inner = inner.request_handler
        self._limits = limits
        self._addresses: Counter[str] = Counter()
        self._address_of: dict[web.RequestHandler, str] = {}

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=asyncio.get_running_loop(), **self._settings)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        address = _address(transport)
        self._addresses[address] += 1
        self._address_of[handler] = address
        if (
            len(self.connections) > self._limits.connections_max
            or self._addresses[address] > self._limits.connections_per_address_max
        ):
            _log.warning("api.connection_refused", connections=len(self.connections))
            transport.write(_BUSY)
            transport.close()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        address = self._address_of.pop(handler, None)
        if address is not None:
            self._addresses[address] -= 1
            if self._addresses[address] <= 0:
                del self._addresses[address]

    async def _answer(self, request: Any) -> web.StreamResponse:
        # What is refused before the middlewares run (an unknown expectation) still leaves as a problem.
        try:
            return await self._inner(request)
        except web.HTTPException as error:
            return problem_response(from_http_exception(error))


class _Runner(web.AppRunner):
    __slots__ = ("_limits",)

    def __init__(self, app: web.Application, limits: ApiLimits) -> None:
        super().__init__(app, shutdown_timeout=5.0)
        self._limits = limits

    async def _make_server(self) -> web.Server:
        inner = await super()._make_server()
        return _Server(
            inner,
            self._limits,
            auto_decompress=False,
            keepalive_timeout=self._limits.idle_s,
            lingering_time=self._limits.linger_s,
            max_headers=64,
            max_line_size=4_096,
            max_field_size=4_096,
            access_log=None,
        )


class ApiServer:
    """A listening API; `port` is the one that was bound."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner

    @property
    def address(self) -> str:
        """Return the bound host."""
        return str(self._runner.addresses[0][0])

    @property
    def port(self) -> int:
        """Return the bound port."""
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening, give requests under way 5 s, and close."""
        await self._runner.cleanup()


async def start_api(
    app: web.Application,
    host: str,
    port: int,
    *,
    ssl_context: ssl.SSLContext | None = None,
    limits: ApiLimits | None = None,
) -> ApiServer:
    """Listen on `host` and `port` (0: any free one); raise `OSError` if that cannot be bound."""
    runner = _Runner(app, limits or ApiLimits())
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=ssl_context, reuse_port=False).start()
    except OSError:
        await runner.cleanup()
        raise
    return ApiServer(runner)


def _address(transport: asyncio.Transport) -> str:
    peer = transport.get_extra_info("peername")
    return address_key(peer[0] if isinstance(peer, tuple) else None)


_BUSY_BODY = problem_body(Problem(503, "the gateway has as many connections as it takes; try again later"))
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 5\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_BUSY_BODY), _BUSY_BODY)
)
