"""The console on the API's own fixtures: a signed-in browser without a browser."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.api.auth import Role, session_cookie
from tests.gateway.api.conftest import (  # noqa: F401  (fixtures)
    Answer,
    Gateway,
    World,
    empty_database,
    full_folder,
    gateway,
    open_gateway,
    world,
)


@dataclass(frozen=True)
class Visitor:
    """Somebody with a browser: sends the cookie, and says where a form comes from."""

    gateway: Gateway
    role: Role | None
    language: str = "en"

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.gateway.ask("GET", path, role=None, headers=self._headers() | headers)

    async def post(self, path: str, **fields: Any) -> Answer:
        headers = self._headers() | {"Origin": self.gateway.base}
        return await self.gateway.ask("POST", path, role=None, headers=headers, data=fields)

    def _headers(self) -> dict[str, str]:
        cookies = {"Accept-Language": self.language}
        if self.role is not None:
            cookies["Cookie"] = f"{session_cookie(False)}={self.gateway.tokens[self.role]}"
        return cookies


@pytest.fixture
def admin(world: World) -> Visitor:  # noqa: F811
    return Visitor(world.gateway, Role.ADMIN)


def body_of(answer: Answer) -> str:
    """Return a page as it was before it was compressed."""
    coded = answer.headers.get("Content-Encoding") in ("gzip", "deflate")
    return (zlib.decompress(answer.body, wbits=47) if coded else answer.body).decode()


def text_of(answer: Answer) -> str:
    """Return what a page says, without its tags."""
    plain = re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", " ", body_of(answer), flags=re.DOTALL)
    return re.sub(r"\s+", " ", plain)
