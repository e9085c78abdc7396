"""What the gateway counts costs what the tariff says: steps, sessions, allowances and free windows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import msgspec
import pytest

from gateway.pricing import Priced, Pricing
from protocol import cose
from protocol.numbers import DocumentKind, Precedence
from protocol.tariffs import BillingStep, Tariff
from protocol.windows import parse_windows
from store.fleet.fleet import FleetStore
from store.fleet.records import Direction, DocumentRecord, LedgerEntry
from tests.gateway.fleets import NOW_MS, Signers, add_truck

SAT = Tariff("sat", "KES", 5_000, step=BillingStep.DATAGRAM, step_bytes=50)


async def pricing(fleet: FleetStore, tariff: Tariff, clock: list[int]) -> Pricing:
    await add_truck(fleet)
    config = Signers().config(links=(), tariffs=(tariff,))
    record = DocumentRecord(cose.digest(config), DocumentKind.CONFIG, 1, "ke-arrow", config, NOW_MS, "a test")
    await fleet.put_document(replace(record, trucks=("ke-arrow",)))
    return Pricing(fleet, now_ms=lambda: clock[0])


async def test_each_datagram_is_rounded_up_by_itself(fleet: FleetStore) -> None:
    found = await (await pricing(fleet, SAT, [NOW_MS])).cost("ke-arrow", "sat", Counter({101: 2, 50: 1}))
    assert found == Priced(350, 350 * 5_000, "KES")


async def test_a_session_is_one_until_it_was_silent(fleet: FleetStore) -> None:
    tariff = replace_tariff(SAT, step=BillingStep.SESSION, step_bytes=1_000, session_milli=7, session_idle_s=60)
    clock = [NOW_MS]
    priced = await pricing(fleet, tariff, clock)
    costs = []
    for seconds in (0, 30, 100):
        clock[0] = NOW_MS + seconds * 1000
        costs.append(await priced.cost("ke-arrow", "sat", Counter({300: 1})))
    session = 1_000 * 5_000 + 7 * 1_000_000
    assert costs == [Priced(1_000, session, "KES"), Priced(0, 0, "KES"), Priced(1_000, session, "KES")]


async def test_an_allowance_is_used_up_first_and_is_known_again_after_a_restart(fleet: FleetStore) -> None:
    tariff = replace_tariff(SAT, allowance_bytes=200, step=BillingStep.BYTE, step_bytes=1)
    clock = [NOW_MS]
    first = await (await pricing(fleet, tariff, clock)).cost("ke-arrow", "sat", Counter({150: 1}))
    assert first == Priced(150, 0, "KES")
    entry = LedgerEntry("ke-arrow", "sat", Precedence.NORMAL, "batch", Direction.UP, NOW_MS, 150, 1, 150, 0, "KES")
    await fleet.ledger_add([entry])
    again = Pricing(fleet, now_ms=lambda: clock[0])
    assert await again.cost("ke-arrow", "sat", Counter({150: 1})) == Priced(150, 100 * 5_000, "KES")


async def test_a_free_window_bills_nothing(fleet: FleetStore) -> None:
    tariff = replace_tariff(SAT, free=parse_windows("daily 00:00-24:00"))
    clock = [NOW_MS - NOW_MS % 86_400_000 + 43_200_000]
    assert await (await pricing(fleet, tariff, clock)).cost("ke-arrow", "sat", Counter({101: 1})) == Priced(0, 0, "KES")


@pytest.mark.parametrize(("truck", "link"), [("ke-arrow", "lte"), ("nobody", "sat")])
async def test_of_what_nobody_priced_the_bytes_are_counted(fleet: FleetStore, truck: str, link: str) -> None:
    found = await (await pricing(fleet, SAT, [NOW_MS])).cost(truck, link, Counter({101: 1}))
    assert found == Priced(101, None, "")


def replace_tariff(tariff: Tariff, **changes: object) -> Tariff:
    return msgspec.structs.replace(tariff, **changes)
