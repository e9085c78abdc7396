"""Debian's Chromium, driven by Playwright, on the console of a gateway with a bit of everything in it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from gateway.api.auth import Role, session_cookie
from tests.gateway.api.conftest import Gateway

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A headless browser; skip where there is none."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no browser is installed (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield launched
        await launched.close()


@dataclass
class Visit:
    """One person's browser window. `problems` are what its console complained of, and requests to anywhere else."""

    page: Page
    base: str
    problems: list[str]

    async def open(self, path: str) -> None:
        response = await self.page.goto(self.base + path)
        assert response is not None
        assert response.status == 200, path


async def visit(
    browser: Browser,
    gateway: Gateway,
    *,
    role: Role | None = Role.ADMIN,
    size: dict[str, int] | None = None,
    **settings: Any,
) -> Visit:
    """Open a window, signed in as a role."""
    context: BrowserContext = await browser.new_context(viewport=size or DESKTOP, locale="en-GB", **settings)
    context.set_default_timeout(20_000)
    if role is not None:
        cookie = {"name": session_cookie(False), "value": gateway.tokens[role], "url": gateway.base}
        await context.add_cookies([cookie])  # type: ignore[list-item]
    page = await context.new_page()
    seen = Visit(page, gateway.base, [])
    page.on("pageerror", lambda error: seen.problems.append(str(error)))
    page.on("console", lambda message: seen.problems.append(message.text) if message.type == "error" else None)
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((seen.base, "data:")) else seen.problems.append(f"asked {request.url}")
        ),
    )
    return seen
