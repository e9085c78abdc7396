"""For everybody: no serious fault that axe-core finds, on a phone and a desktop, light and dark, by keyboard alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from tests.gateway.api.conftest import World
from tests.gateway.console.browser.conftest import DESKTOP, PHONE, Visit, visit
from tests.rig.npm import installed

AXE = "axe-core@4.14.1"
PAGES = ("/", "/trucks/ke-arrow", "/trucks/ke-arrow/config", "/bundles", "/bundles/maths/v1", "/rollouts",
         "/rollouts/new", "/budgets", "/alarms", "/report",
         "/enrol", "/users", "/audit", "/keys", "/signin")  # fmt: skip
# What reaches beyond the screen and does not scroll by itself.
WIDE = """() => [...document.querySelectorAll('main *, header *')].filter(
  (each) => each.getBoundingClientRect().right > innerWidth && !each.closest('.table')
).map((each) => each.outerHTML.slice(0, 80)).slice(0, 3)"""
RUN = "async () => (await axe.run({resultTypes: ['violations']})).violations"


async def faults(window: Visit, axe: Path) -> list[str]:
    # Put in by the debugger, not by the page, whose policy forbids foreign scripts.
    await window.page.evaluate(axe.read_text())
    found: list[dict[str, Any]] = await window.page.evaluate(RUN)
    return [
        f"{each['id']}: {each['help']}: {node['html'][:120]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
async def test_no_page_has_a_serious_fault_or_is_wider_than_the_screen(
    browser: Browser, world: World, size: dict[str, int], scheme: str
) -> None:
    axe = installed(AXE, "axe.min.js")
    window = await visit(browser, world.gateway, size=size, color_scheme=scheme)
    wrong = []
    for path in PAGES:
        await window.open(path)
        await window.page.wait_for_timeout(200)
        wrong += [f"{path} {each}" for each in await faults(window, axe)]
        width = await window.page.evaluate("document.scrollingElement.scrollWidth")
        if width > size["width"]:
            wrong.append(f"{path} is {width} wide: {await window.page.evaluate(WIDE)}")
    assert wrong == []
    assert window.problems == []


async def test_the_keyboard_reaches_the_content_at_once_and_sees_where_it_is(browser: Browser, world: World) -> None:
    window = await visit(browser, world.gateway)
    await window.open("/budgets")
    await window.page.keyboard.press("Tab")
    assert await window.page.evaluate("document.activeElement.className") == "skip"
    await window.page.keyboard.press("Enter")
    await window.page.keyboard.press("Tab")  # the table, which can be scrolled
    await window.page.keyboard.press("Tab")
    focused = await window.page.evaluate("document.activeElement.getAttribute('href')")
    assert focused == "/trucks/ke-arrow"
    outline = await window.page.evaluate(
        "getComputedStyle(document.activeElement).boxShadow + getComputedStyle(document.activeElement).outlineStyle"
    )
    assert outline not in ("nonenone", "none")
