"""The docs page is one page for people: all routes, nothing from elsewhere, no script."""

import re

from gateway.api.app import OPERATIONS
from tests.gateway.api.conftest import Gateway


async def test_the_page_names_every_route_and_loads_nothing(gateway: Gateway) -> None:
    answer = await gateway.get("/v1/docs", role=None)
    page = answer.body.decode()
    assert answer.media == "text/html"
    for each in OPERATIONS:
        assert f"id='{each.name}'" in page
        assert each.path in page
    assert not re.search(r"<script|src=|https?://|@import|url\(", page)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "unsafe-inline" not in answer.headers["Content-Security-Policy"]


async def test_every_link_on_the_page_leads_somewhere(gateway: Gateway) -> None:
    page = (await gateway.get("/v1/docs", role=None)).body.decode()
    ids = set(re.findall(r"id='([^']+)'", page))
    assert set(re.findall(r"href='#([^']+)'", page)) <= ids
