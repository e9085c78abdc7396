"""The uplink and its budgets, by what a wire in between counts: never over, and silent once they are used up."""

from __future__ import annotations

import asyncio
import time

import pytest

from edge.config import LinkSettings
from protocol.documents import LinkConfig
from protocol.numbers import ParcelKind, Precedence
from protocol.tariffs import Budget, Tariff
from tests.edge.rig import Rig, Wire, arrived, queued, send, settled, until


async def quiet(wire: Wire) -> None:
    """Wait until nothing has been carried for a while."""
    carried = -1
    while carried != wire.total_bytes:
        carried = wire.total_bytes
        await asyncio.sleep(1.2)


@pytest.mark.parametrize("delay_s", [0.0, 0.4])
async def test_a_month_is_never_overspent_and_flash_has_its_reserve(rig: Rig, delay_s: float) -> None:
    wire = await rig.wire()
    cap, reserve = 30_000, 6_000
    link = LinkSettings(name="sat", gateways=(wire.address,), month_bytes_max=cap, reserve_bytes=reserve)
    edge = await rig.start(await rig.join(), link)
    wire.delay_s = delay_s  # answers that come after their request was given up count as well
    for number in range(150):
        await edge.recorder.event(f"event.{number}", Precedence.NORMAL, (("text", "x" * 200),))
    await quiet(wire)
    assert wire.total_bytes <= cap - reserve
    if not delay_s:
        # Requests that were given up hold their worst case for a while: a slow wire leaves more unspent at first.
        assert wire.total_bytes > (cap - reserve) / 2
    assert await queued(edge) > 0
    processor_s = time.process_time()
    await asyncio.sleep(1.0)
    assert time.process_time() - processor_s < 0.2  # refused means idle
    await send(edge, "fire", Precedence.FLASH)
    await arrived(rig, "fire")
    assert wire.total_bytes <= cap
    for number in range(40):
        await send(edge, f"fire.{number}", Precedence.FLASH)
    await asyncio.sleep(0.5 + 2 * delay_s)
    assert wire.total_bytes <= cap
    await edge.situation.refresh()
    status = edge.situation.status().links[0]
    assert status.budget_bytes == cap
    assert status.spent_bytes <= cap
    assert {each.precedence: each.reason for each in status.waits}["normal"] in ("reserve", "spent")


async def test_a_spent_link_gives_way_to_a_dearer_one(rig: Rig) -> None:
    sat, lte = await rig.wire(), await rig.wire()
    edge = await rig.start(
        await rig.join(),
        LinkSettings(name="lte", gateways=(lte.address,), month_bytes_max=6_000),
        LinkSettings(name="sat", gateways=(sat.address,), price_per_mb=5.0),
    )
    for number in range(40):
        await edge.recorder.event(f"event.{number}", Precedence.NORMAL, (("text", "x" * 200),))
    await settled(edge)
    assert lte.total_bytes <= 6_000
    assert sat.total_bytes > 0


async def test_a_link_of_no_budget_sends_nothing_and_stops_nothing(rig: Rig) -> None:
    wire = await rig.wire()
    edge = await rig.start(await rig.join(), LinkSettings(name="sat", gateways=(wire.address,), month_bytes_max=0))
    await send(edge, "never", Precedence.FLASH)
    await asyncio.sleep(0.5)
    assert wire.total_bytes == 0
    assert rig.failed(edge) is None


async def test_every_parcel_kind_names_its_cause_in_the_ledger(rig: Rig) -> None:
    edge = await rig.start(await rig.join())
    await edge.recorder.record((("water.level", 0.83),), None)
    await settled(edge)
    await edge.recorder.close_all()
    await settled(edge)
    await send(edge, "one")
    await settled(edge)
    causes = {each.cause for each in edge.ledger.totals()}
    assert {"hello", "handshake", "event", "batch", "schema"} <= causes
    assert {kind.name.lower() for kind in ParcelKind} >= causes - {"hello", "handshake", "document"}


async def test_a_signed_tariff_is_billed_its_budget_of_money_kept_and_its_reasons_told(rig: Rig) -> None:
    wire = await rig.wire()
    edge = await rig.start(await rig.join(), LinkSettings(name="sat", gateways=(wire.address,)))
    await settled(edge)
    tariff = Tariff("sat", "USD", 5_000, billing_day=15, zone="Africa/Nairobi")
    budget = Budget("sat", None, 100, 0, 20)  # 0.100 USD, 0.020 of it for flash
    await rig.hub.accept(
        rig.hub.signers.config(1, links=(LinkConfig("sat", 5_000_000),), tariffs=(tariff,), budgets=(budget,))
    )
    await send(edge, "nudge")
    await until(lambda: edge.budgets["sat"].terms.tariff == tariff)
    free_bytes = edge.ledger.booked("sat")  # before the tariff was known, nothing had a price
    for number in range(80):
        await edge.recorder.event(f"event.{number}", Precedence.NORMAL, (("text", "x" * 200),))
    await quiet(wire)
    # What got no answer in time is settled when none can come any more.
    await until(lambda: edge.ledger.booked("sat") == wire.total_bytes, within_s=90)
    spent = edge.ledger.booked_nano("sat")
    assert 40_000_000 < spent <= 80_000_000
    assert spent == (wire.total_bytes - free_bytes) * 5_000
    assert await queued(edge) > 0
    link = edge.situation.status().links[0]
    waits = {each.precedence: each for each in link.waits}
    assert "flash" not in waits
    assert waits["normal"].reason == "reserve"
    assert "of 0.10 USD left are flash's reserve; new period on 15 " in waits["normal"].text
    assert waits["normal"].text.endswith("00:00 Africa/Nairobi")
    assert link.tariff == "5.00 USD/MB, month from 15 (Africa/Nairobi)"
    assert link.spent_money.endswith(" USD")
