"""A real API on loopback: real server, real client; `Gateway` is what a test asks and looks into."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from gateway.api.app import make_app
from gateway.api.auth import Role, new_token, token_sha256
from gateway.api.limits import ApiLimits
from gateway.api.server import ApiServer, start_api
from gateway.api.services import SamplesPage, Services

NOW_MS = 1_795_000_000_000


@dataclass(frozen=True)
class FakeToken:
    name: str
    role: str
    expires_ms: int | None = None
    revoked_ms: int | None = None


@dataclass
class FakeFleet:
    tokens: dict[bytes, FakeToken] = field(default_factory=dict)
    fault: Exception | None = None

    async def token(self, sha256: bytes) -> FakeToken | None:
        if self.fault is not None:
            raise self.fault
        return self.tokens.get(sha256)


class NoTelemetry:
    async def samples(self, truck: str, **_: Any) -> SamplesPage:
        return SamplesPage([], None)


async def accept_nothing(signed: bytes, actor: str) -> Any:
    raise AssertionError("no document is put here")


@dataclass
class Gateway:
    """A running API and a client for it."""

    server: ApiServer
    session: aiohttp.ClientSession
    fleet: Any
    tokens: dict[Role, str]

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def headers(self, role: Role | None) -> dict[str, str]:
        return {} if role is None else {"Authorization": f"Bearer {self.tokens[role]}"}

    async def ask(self, method: str, path: str, *, role: Role | None = Role.ADMIN, **kwargs: Any) -> Answer:
        headers = self.headers(role) | kwargs.pop("headers", {})
        async with self.session.request(
            method, self.base + path, headers=headers, allow_redirects=False, **kwargs
        ) as response:
            return Answer(response.status, dict(response.headers), await response.read())

    async def get(self, path: str, **kwargs: Any) -> Answer:
        return await self.ask("GET", path, **kwargs)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def media(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0]


Opener = Callable[..., AbstractAsyncContextManager[Gateway]]


@pytest.fixture
def open_gateway() -> Opener:
    """Open an API with given limits."""

    @asynccontextmanager
    async def opened(limits: ApiLimits | None = None) -> AsyncIterator[Gateway]:
        fleet = FakeFleet()
        tokens = {role: new_token() for role in Role}
        for role, token in tokens.items():
            fleet.tokens[token_sha256(token)] = FakeToken(f"the-{role}", role.value)
        services = Services(
            now_ms=lambda: NOW_MS,
            make_code=lambda truck, secret: f"DT1-{truck}-{secret.hex()}",
            accept_document=accept_nothing,
            telemetry=NoTelemetry(),
        )
        app = make_app(fleet, None, services, limits=limits)
        server = await start_api(app, "127.0.0.1", 0, limits=limits)
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            try:
                yield Gateway(server, session, fleet, tokens)
            finally:
                await session.close()
                await server.close()

    return opened


@pytest.fixture
async def gateway(open_gateway: Opener) -> AsyncIterator[Gateway]:
    async with open_gateway() as opened:
        yield opened
