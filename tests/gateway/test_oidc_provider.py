"""Signing in at a real OpenID provider, npm's oidc-provider, from the browser to the session.

It is installed once into the user's cache folder; without node and npm these tests are skipped.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp
import pytest
from yarl import URL

from gateway.oidc import OidcProvider
from tests.gateway.api.conftest import Gateway, empty_database, serve  # noqa: F401  # the database with tokens
from tests.gateway.fleets import copied_fleet
from tests.gateway.test_oidc import REDIRECT, settings
from tests.rig.npm import installed

# The last version that also runs on Debian's node 18.
PACKAGE = "oidc-provider@8.8.1"
SECRET = "a secret of the tests"


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """A real OpenID provider."""
    script = Path(__file__).with_name("oidc_provider.mjs")
    command = ["node", str(script), str(installed(PACKAGE, "lib/index.js")), REDIRECT]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        while line and not line.startswith("{"):
            line = process.stdout.readline()
        yield json.loads(line)["issuer"]
        process.stdin.close()


@pytest.fixture
async def gateway(empty_database: Path, tmp_path: Path, issuer: str) -> AsyncIterator[Gateway]:  # noqa: F811
    """A gateway at which people sign in through the real provider."""
    provider = OidcProvider(settings(issuer), client_secret=SECRET, now_s=lambda: int(time.time()))
    async with (
        copied_fleet(empty_database, tmp_path / "fleet.db") as fleet,
        serve(fleet, tmp_path, sign_in=provider) as opened,
    ):
        yield opened


class Browser:
    """A person's browser: cookies, redirects, and the provider's two forms filled in."""

    def __init__(self, session: aiohttp.ClientSession, gateway: Gateway) -> None:
        self._session = session
        self._gateway = gateway

    async def get(self, path: str) -> tuple[int, str, str]:
        """Return (status, Location, body)."""
        async with self._session.get(URL(self._gateway.base + path, encoded=True), allow_redirects=False) as response:
            return response.status, response.headers.get("Location", ""), await response.text()

    async def begin(self) -> URL:
        status, location, _ = await self.get("/v1/session/login")
        assert status == 303
        return URL(location)

    async def at_provider(self, address: URL, account: str) -> str:
        """Sign in at the provider; return the path and query of the callback to the gateway."""
        method, data = "GET", None
        url = str(address)
        for _ in range(12):
            async with self._session.request(method, URL(url, encoded=True), data=data, allow_redirects=False) as page:
                text = await page.text()
                method, data = "GET", None
                if page.status in (302, 303):
                    url = urljoin(url, page.headers["Location"])
                    if url.startswith(REDIRECT):
                        parts = urlsplit(url)
                        return f"{parts.path}?{parts.query}"
                    continue
            assert page.status == 200, text
            action, prompt = re.search(r'action="([^"]+)"', text), re.search(r'name="prompt" value="(\w+)"', text)
            assert action is not None, text
            assert prompt is not None, text
            url, method = urljoin(url, action[1]), "POST"
            data = {"prompt": prompt[1], "login": account, "password": "any"}
        raise AssertionError("the provider never came back")


@pytest.fixture
async def browser(gateway: Gateway) -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield Browser(session, gateway)


async def test_a_person_signs_in_at_a_real_provider(gateway: Gateway, browser: Browser) -> None:
    callback = await browser.at_provider(await browser.begin(), "amina")
    assert (await browser.get(callback))[:2] == (303, "/v1/session")
    status, _, body = await browser.get("/v1/session")
    told = json.loads(body)
    assert (status, told["role"]) == (200, "operator")
    assert told["name"].startswith("oidc.amina@example.org.")
    # The code is worth nothing a second time, and the secret of this sign-in is gone with its cookie.
    assert (await browser.get(callback))[0] == 400


async def test_the_first_role_that_matches_counts_and_without_one_nobody_comes_in(
    gateway: Gateway, browser: Browser
) -> None:
    await browser.get(await browser.at_provider(await browser.begin(), "joseph"))
    assert json.loads((await browser.get("/v1/session"))[2])["role"] == "publisher"


async def test_a_person_without_a_role_stays_outside(gateway: Gateway, browser: Browser) -> None:
    status, _, body = await browser.get(await browser.at_provider(await browser.begin(), "visitor"))
    assert status == 403
    assert "no role here" in body
    assert await gateway.log() == []


@pytest.mark.parametrize(
    ("name", "status"), [("state", 400), ("nonce", 403), ("code_challenge", 403), ("client_id", 403)]
)
async def test_a_sign_in_that_was_tampered_with_on_the_way_gives_no_session(
    gateway: Gateway, browser: Browser, name: str, status: int
) -> None:
    address = (await browser.begin()).update_query({name: "public" if name == "client_id" else "y" * 43})
    assert (await browser.get(await browser.at_provider(address, "amina")))[0] == status
    assert await gateway.log() == []


async def test_a_code_of_somebody_elses_sign_in_is_refused(gateway: Gateway, browser: Browser) -> None:
    callback = URL(await browser.at_provider(await browser.begin(), "amina"))
    own = await browser.begin()  # a new secret in this browser, as if the code was put into another one
    status, _, _ = await browser.get(str(callback.update_query(state=own.query["state"])))
    assert status == 403
    assert await gateway.log() == []
