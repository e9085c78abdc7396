"""A truck tells its account when it is time, once, in few bytes, and what was never carried is not in it."""

from __future__ import annotations

from pathlib import Path

from edge.account import AccountReport, account_values
from protocol.billing import Cost
from protocol.budget import UNCAPPED
from protocol.messages import Event
from protocol.numbers import ACCOUNT_VALUES_MAX, Precedence
from store.accounts import CostTotal, Total
from store.ledger import Ledger
from store.links import open_links

DAY_S = 86_400


class FakeRecorder:
    """Keeps what it is told, and marks with it."""

    def __init__(self) -> None:
        self.told: list[dict[str, int | bool | str]] = []
        self.kept: dict[str, bytes] = {}

    async def event(
        self,
        name: str,
        precedence: Precedence,
        values: tuple[tuple[str, int | bool | str], ...] = (),
        time_s: float | None = None,
        *,
        mark: tuple[str, bytes] | None = None,
    ) -> int:
        assert (name, precedence) == ("ledger.account", Precedence.NORMAL)
        self.told.append(dict(values))
        if mark is not None:
            self.kept[mark[0]] = mark[1]
        return len(self.told)

    async def remember(self, name: str, value: bytes) -> None:
        self.kept[name] = value

    async def remembered(self, name: str) -> bytes | None:
        return self.kept.get(name)


class Truck:
    """A ledger, a clock and a recorder that survive a restart of the report."""

    def __init__(self, folder: Path) -> None:
        self.links = open_links(folder / "links.db", {"sat": UNCAPPED}, host=b"a", boot=1)
        self.recorder = FakeRecorder()
        self.now_s: float | None = 1_795_000_000.0
        self.start()

    @property
    def ledger(self) -> Ledger:
        return self.links.ledger

    def start(self, *, every_days: int = 28) -> None:
        self.report = AccountReport(self.ledger, self.recorder, every_days=every_days, wall_s=lambda: self.now_s)

    def carry(self, count: int) -> None:
        self.ledger.charge("sat", Precedence.NORMAL, "batch", "sent", count, period=202_611)

    async def after(self, days: float) -> bool:
        assert self.now_s is not None
        self.now_s += days * DAY_S
        return await self.report.tell_if_due()


async def test_it_is_told_every_four_weeks_with_totals_that_grow(tmp_path: Path) -> None:
    truck = Truck(tmp_path)
    truck.carry(1_000)
    assert [await truck.after(days) for days in (0, 27, 1.1, 1, 27.1)] == [False, False, True, False, True]
    truck.carry(500)
    truck.start()
    assert [await truck.after(days) for days in (1, 27)] == [False, True]
    assert [each["sat.2u"] for each in truck.recorder.told] == [1_000, 1_000, 1_500]
    truck.links.close()


async def test_without_a_clock_or_when_switched_off_nothing_is_told(tmp_path: Path) -> None:
    truck = Truck(tmp_path)
    truck.carry(1)
    await truck.after(0)
    truck.start(every_days=0)
    assert not await truck.after(100)
    truck.start()
    truck.now_s = None
    assert not await truck.report.tell_if_due()
    assert truck.recorder.told == []
    truck.links.close()


def total(link: str, cause: str, direction: str, count: int, precedence: Precedence = Precedence.NORMAL) -> Total:
    return Total(202_611, link, precedence, cause, direction, count, 1)


def test_what_a_crash_counted_to_be_safe_was_never_carried() -> None:
    totals = [total("sat", "batch", "sent", 5), total("sat", "crash", "sent", 99), total("sat", "batch", "received", 2)]
    costs = [CostTotal(202_611, "sat", Precedence.NORMAL, "batch", Cost(7, 1_000_001))]
    assert dict(account_values(totals, costs)) == {"sat.2u": 5, "sat.2d": 2, "sat.b": 7, "sat.m": 2}


def test_of_more_than_fit_the_largest_are_told() -> None:
    totals = [total(f"link-{n}", "batch", "sent", n + 1) for n in range(100)]
    values = account_values(totals, [])
    assert len(values) == ACCOUNT_VALUES_MAX
    assert min(count for _, count in values) == 41


def test_a_usual_account_costs_some_eight_bytes_a_day() -> None:
    totals = [
        total(link, "batch", way, 30_000_000, precedence)
        for link in ("sat", "lte")
        for way in ("sent", "received")
        for precedence in (Precedence.PRIORITY, Precedence.NORMAL)
    ]
    costs = [CostTotal(202_611, link, Precedence.NORMAL, "batch", Cost(30_000_000, 10**12)) for link in ("sat", "lte")]
    event = Event("ledger.account", 1_795_000_000_000, dict(account_values(totals, costs)))
    # Its parcel rides in an upload that goes anyway: array, signature and length are what it adds.
    assert (len(event.encode()) + 80) / 28 < 10
