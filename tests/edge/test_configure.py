"""Configuration: what a signed one changes, and how one that cuts the truck off undoes itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from edge.config import EdgeConfig, LinkSettings
from edge.configure import Configurator, Effective, effective
from protocol.documents import Addressee, CollectorConfig, Config, LinkConfig
from protocol.errors import LocalError
from protocol.messages import Receipt
from protocol.numbers import DocumentKind, Outcome
from protocol.tariffs import Budget, Grant, Pool, Tariff, Unit
from protocol.terms import Terms

FILE = EdgeConfig(
    batch_age_s=100,
    link=(
        LinkSettings(name="lte", month_bytes_max=1_000, reserve_bytes=10, price_per_mb=0.5, currency="KES"),
        LinkSettings(name="sat", price_per_mb=5.0),
    ),
    collector=({"kind": "host", "name": "host", "period_s": 60}, {"kind": "replay", "name": "old", "period_s": 1}),
)


def config(version: int = 1, **settings: Any) -> Config:
    dates = {"document": DocumentKind.CONFIG, "version": version, "issued_s": 1, "expires_s": 2**40}
    return Config(**dates, addressee=Addressee(("ke-arrow",)), **settings)


def test_without_a_signed_configuration_the_file_holds() -> None:
    found = effective(FILE, None)
    assert found.batch_age_s == 100
    assert found.collectors == FILE.collector
    assert found.terms == (
        Terms(Tariff("lte", "KES", 500), Budget("lte", 1_000, None, 10)),
        Terms(Tariff("sat", "USD", 5_000), Budget("sat", None)),
    )


def test_what_a_configuration_leaves_out_keeps_the_files_setting() -> None:
    assert effective(FILE, config()) == effective(FILE, None)


def test_a_period_is_changed_and_a_collector_switched_off_by_name() -> None:
    signed = config(collectors=(CollectorConfig("host", 30), CollectorConfig("old", 0), CollectorConfig("absent", 5)))
    assert effective(FILE, signed).collectors == ({"kind": "host", "name": "host", "period_s": 30},)


def test_a_budget_is_replaced_and_the_price_only_when_one_is_given() -> None:
    signed = config(links=(LinkConfig("lte", 77, 7), LinkConfig("sat", 88, 8, 9_000, "EUR"), LinkConfig("usb", 1)))
    assert effective(FILE, signed).terms == (
        Terms(Tariff("lte", "KES", 500), Budget("lte", 77, None, 7)),
        Terms(Tariff("sat", "EUR", 9_000), Budget("sat", 88, None, 8)),
    )


def test_tariffs_budgets_and_grants_replace_the_simple_budget_of_their_link() -> None:
    tariff, budget = Tariff("sat", "KES", 12_000, billing_day=15, zone="Africa/Nairobi"), Budget("sat", 900)
    pool = Pool("sat", Unit.BYTES, 1_000, (Grant("ke-arrow", 600), Grant("tz-arrow", 400)))
    signed = config(links=(LinkConfig("sat", 5),), tariffs=(tariff,), budgets=(budget,), pools=(pool,))
    lte, sat = effective(FILE, signed, "ke-arrow").terms
    assert lte == effective(FILE, None).terms[0]
    assert sat == Terms(tariff, budget, 600)
    assert sat.bytes_cap.units_max == 600


@dataclass
class Truck:
    """A configurator and what it did."""

    applied: list[float] = field(default_factory=list)
    receipts: list[tuple[int, Outcome, str]] = field(default_factory=list)
    rejected: list[bytes] = field(default_factory=list)
    confirmed: list[bytes] = field(default_factory=list)
    now: float = 10.0
    refuse: set[float] = field(default_factory=set)

    def configurator(self) -> Configurator:
        return Configurator(
            FILE,
            apply=self._apply,
            send_receipt=self._receipt,
            rejected=frozenset(self.rejected),
            remember_rejected=self._note(self.rejected),
            confirmed=self.confirmed[-1] if self.confirmed else None,
            remember_confirmed=self._note(self.confirmed),
            monotonic=lambda: self.now,
        )

    async def _apply(self, settings: Effective) -> None:
        if settings.batch_age_s in self.refuse:
            raise LocalError("this cannot be")
        self.applied.append(settings.batch_age_s)

    async def _receipt(self, receipt: Receipt) -> None:
        assert receipt.document is DocumentKind.CONFIG
        assert receipt.name == "ke-arrow"
        self.receipts.append((receipt.version, receipt.outcome, receipt.reason))

    @staticmethod
    def _note(notes: list[bytes]) -> Any:
        async def note(digest: bytes) -> None:
            notes.append(digest)

        return note


A, B, C = b"a" * 32, b"b" * 32, b"c" * 32


@pytest.fixture
def truck() -> Truck:
    return Truck()


async def test_a_configuration_is_applied_once_and_receipted(truck: Truck) -> None:
    made = truck.configurator()
    await made.start([])
    for _ in range(3):
        await made.want(A, config(batch_age_s=5))
    assert truck.applied == [100, 5]
    assert truck.receipts == [(1, Outcome.APPLIED, "")]
    assert made.applied_version == 1


async def test_one_that_cannot_be_applied_is_taken_back_with_its_reason_and_not_tried_again(truck: Truck) -> None:
    made = truck.configurator()
    await made.start([])
    await made.want(A, config(batch_age_s=5))
    truck.refuse.add(6)
    for _ in range(2):
        await made.want(B, config(2, batch_age_s=6))
    assert truck.applied == [100, 5, 5]
    assert truck.receipts[1:] == [(2, Outcome.REJECTED, "this cannot be")]
    assert truck.rejected == [B]
    assert made.applied_version == 1


def cutting(version: int = 2, batch_age_s: int = 6) -> Config:
    # Less than a minute is not valid on the wire; here nobody waits that long.
    return config(version, batch_age_s=batch_age_s, confirm_within_s=0.05)


async def test_one_that_cuts_the_truck_off_undoes_itself(truck: Truck) -> None:
    made = truck.configurator()
    await made.start([])
    await made.want(A, config(batch_age_s=5))
    await made.want(B, cutting())
    assert made.applied_version == 2
    await asyncio.sleep(0.1)
    assert truck.applied == [100, 5, 6, 5]
    assert [outcome for _, outcome, _ in truck.receipts] == [Outcome.APPLIED, Outcome.APPLIED, Outcome.ROLLED_BACK]
    assert "not reached" in truck.receipts[-1][2]
    await made.want(B, cutting())
    assert made.applied_version == 1


async def test_an_answer_to_what_was_sent_afterwards_confirms(truck: Truck) -> None:
    made = truck.configurator()
    await made.start([])
    await made.want(A, cutting(1))
    await made.contact(truck.now + 0.5)
    await asyncio.sleep(0.1)
    assert truck.applied == [100, 6]
    assert truck.confirmed == [A]


async def test_an_answer_to_what_was_sent_before_confirms_nothing(truck: Truck) -> None:
    made = truck.configurator()
    await made.start([])
    await made.want(A, cutting(1))
    await made.contact(truck.now - 0.5)
    await asyncio.sleep(0.1)
    assert truck.applied == [100, 6, 100]
    assert truck.rejected == [A]


async def test_a_reboot_in_the_window_does_not_confirm(truck: Truck) -> None:
    before = truck.configurator()
    await before.start([])
    await before.want(A, cutting(1))
    await before.close()
    after = truck.configurator()
    await after.start([(A, cutting(1))])
    await asyncio.sleep(0.1)
    assert truck.applied == [100, 6, 6, 100]
    assert truck.rejected == [A]


async def test_what_was_confirmed_needs_no_second_confirmation_after_a_reboot(truck: Truck) -> None:
    before = truck.configurator()
    await before.start([])
    await before.want(A, cutting(1))
    await before.contact(truck.now + 1)
    after = truck.configurator()
    await after.start([(A, cutting(1))])
    await asyncio.sleep(0.1)
    assert truck.applied == [100, 6, 6]
    assert truck.rejected == []


async def test_after_a_reboot_the_one_before_what_was_taken_back_holds(truck: Truck) -> None:
    truck.rejected.append(B)
    made = truck.configurator()
    await made.start([(B, cutting()), (A, config(batch_age_s=5))])
    assert truck.applied == [5]
    assert made.applied_version == 1


async def test_one_that_cannot_be_applied_any_more_does_not_keep_the_truck_from_starting(truck: Truck) -> None:
    truck.refuse.add(6)
    made = truck.configurator()
    await made.start([(B, cutting()), (A, config(batch_age_s=5))])
    assert truck.applied == [5]
    truck.refuse.add(5)
    last = truck.configurator()
    await last.start([(A, config(batch_age_s=5))])
    assert truck.applied == [5, 100]
    assert last.applied_version is None


async def test_a_newer_one_ends_the_wait_for_the_one_before(truck: Truck) -> None:
    made = truck.configurator()
    await made.start([])
    await made.want(A, cutting(1))
    await made.want(C, config(3, batch_age_s=7))
    await asyncio.sleep(0.1)
    assert truck.applied == [100, 6, 7]
    assert truck.rejected == []
