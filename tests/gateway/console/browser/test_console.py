"""What people do at the console, in a real browser, from the first sign-in to a signature that a truck believes."""

from __future__ import annotations

import re

from playwright.async_api import Browser, expect

from gateway.api.auth import Role
from gateway.rollups import RollupTask
from protocol import cose
from protocol.documents import Config, Rollout, parse_document
from protocol.numbers import DocumentKind
from tests.gateway.api.conftest import World
from tests.gateway.console.browser.conftest import Visit, visit

KEY_FILE = 'name = "asha-ops"\nrole = "operator"\npublic = "{public}"\nseed = "{seed}"\n'


async def import_key(window: Visit, key: cose.SigningKey) -> None:
    await window.open("/keys")
    text = KEY_FILE.format(public=key.public.hex(), seed=key.seed.hex())
    await window.page.fill("#key-import textarea", text)
    await window.page.click("#key-import button")
    await expect(window.page.locator("#key-list h2")).to_have_text("asha-ops (operator)")


async def test_a_first_visit_leads_from_the_sign_in_to_an_enrolment_code(browser: Browser, world: World) -> None:
    gateway = world.gateway
    link = (await gateway.ask("POST", "/v1/session/link", role=Role.OPERATOR)).json["path"]
    window = await visit(browser, gateway, role=None)
    page = window.page
    await window.open("/enrol")
    await expect(page).to_have_url(re.compile(r"/signin\?next=/enrol$"))
    await window.open(link)
    await page.click("main button")
    await expect(page.locator("h1")).to_have_text("Fleet")
    await page.click("text=Enrol")
    await page.fill("input[name=truck]", "ug-new")
    await page.fill("input[name=group]", "uganda")
    await page.click("text=Make a code")
    await expect(page.locator("#code")).to_contain_text("DT1-ug-new-")
    assert await page.locator(".made img").evaluate("image => image.naturalWidth") > 50
    await expect(page.locator("table")).to_contain_text("ug-new")
    await page.click("text=Sign out")
    await expect(page).to_have_url(re.compile(r"/signin$"))
    assert window.problems == []


async def test_a_configuration_is_signed_in_the_browser_and_believed(browser: Browser, world: World) -> None:
    gateway = world.gateway
    window = await visit(browser, gateway, role=Role.OPERATOR)
    page = window.page
    await import_key(window, gateway.signers.operator)
    await window.open("/trucks/ke-arrow/config")
    await page.fill("input[name='set:links.sat.month_bytes_max']", "7000000")
    await page.fill("textarea[name=more]", "extra.note=hello")
    await page.click("text=Look at the difference")
    await expect(page.locator(".diff")).to_contain_text("+ links.sat.month_bytes_max = 7000000")
    await expect(page.locator("#decoded")).to_contain_text("7000000")
    await expect(page.locator("#decoded")).to_contain_text("addressee")
    await page.click("text=Sign and send")
    await expect(page.locator("text=Version 2 is in force.")).to_be_visible()
    record = await gateway.fleet.newest_config("ke-arrow", "kenya")
    assert record is not None
    config, signed = parse_document(record.signed, Config)
    assert config.links[0].month_bytes_max == 7_000_000
    assert (config.extra["note"], config.confirm_within_s) == ("hello", 3_600)
    assert [each.key_id for each in signed.signatures] == [gateway.signers.operator.key_id]
    assert window.problems == []


async def test_a_key_that_is_not_trusted_is_told_so(browser: Browser, world: World) -> None:
    window = await visit(browser, world.gateway, role=Role.OPERATOR)
    page = window.page
    await window.open("/keys")
    await page.fill("#key-new input[name=name]", "own-key")
    await page.click("#key-new button")
    await expect(page.locator("#key-list pre")).to_have_text(
        re.compile(r"^digitruck-key operator own-key [0-9a-f]{64}$")
    )
    await window.open("/trucks/ke-arrow/config")
    await page.fill("input[name='set:batch_age_s']", "900")
    await page.click("text=Look at the difference")
    await page.click("text=Sign and send")
    await expect(page.locator("#sign-problem")).to_be_visible()
    record = await world.gateway.fleet.newest_config("ke-arrow", "kenya")
    assert record is not None
    assert record.version == 1


async def test_a_rollout_shows_its_quote_before_it_is_signed(browser: Browser, world: World) -> None:
    gateway = world.gateway
    window = await visit(browser, gateway, role=Role.OPERATOR)
    page = window.page
    await import_key(window, gateway.signers.operator)
    await window.open("/bundles")
    await page.click("text=Roll out")
    await page.fill("input[name=trucks]", "ke-arrow")
    await page.click("text=What would it cost?")
    await expect(page.locator("table")).to_contain_text("sat")
    await page.click("text=Go on to the signature")
    await page.click("text=Sign and send")
    await expect(page).to_have_url(re.compile(r"/rollouts$"))
    newest = (await gateway.fleet.documents(kind=DocumentKind.ROLLOUT, limit=10))[0]
    record = await gateway.fleet.document(newest.digest)
    assert record is not None
    rollout, _ = parse_document(record.signed, Rollout)
    assert (rollout.version, rollout.manifest, rollout.addressee.trucks) == (2, world.manifest, ("ke-arrow",))
    assert window.problems == []


async def test_a_chart_draws_every_value_of_its_channel(browser: Browser, world: World) -> None:
    await RollupTask(world.gateway.fleet).catch_up()
    window = await visit(browser, world.gateway, role=Role.VIEWER)
    page = window.page
    await window.open("/trucks/ke-arrow")
    await page.select_option("select[name=channel]", "bat_v")
    await page.select_option("select[name=span]", "1")
    await expect(page.locator("#chart[data-points='2'] canvas")).to_be_visible()
    await expect(page.locator("#chart .u-legend")).to_contain_text("bat_v")
    assert window.problems == []


async def test_the_list_follows_what_happens_without_a_reload(browser: Browser, world: World) -> None:
    window = await visit(browser, world.gateway, role=Role.VIEWER)
    page = window.page
    await window.open("/")
    await page.evaluate("window.stayed = true")
    row = page.locator("#rows tr", has_text="ke-arrow")
    await expect(row).not_to_contain_text("depot")
    for _ in range(20):
        await world.gateway.fleet.heard("ke-arrow", "depot", 1_795_000_000_000)
        if await row.get_by_text("depot").count():
            break
        await page.wait_for_timeout(500)
    await expect(row).to_contain_text("depot")
    assert await page.evaluate("window.stayed")
    await page.fill("input[type=search]", "nothing like it")
    await expect(page.locator("#rows")).to_contain_text("No truck is called like that.")


async def test_a_token_is_made_and_revoked(browser: Browser, world: World) -> None:
    window = await visit(browser, world.gateway)
    page = window.page
    page.on("dialog", lambda dialog: dialog.accept())
    await window.open("/users")
    await page.fill("input[name=name]", "juma")
    await page.click("text=Make a token")
    await expect(page.locator("#code")).to_have_text(re.compile(r"^dt_.{43}$"))
    row = page.locator("tr", has=page.locator("th", has_text="juma"))
    await row.locator("button").click()
    await expect(page.locator("tr", has=page.locator("th", has_text="juma"))).to_contain_text("revoked")
    assert window.problems == []
