"""What the gateway's HTTP API answers about alarms, budgets and bills, as in `gateway.answers`."""

from __future__ import annotations

from msgspec import Struct


class Alarm(Struct, frozen=True):
    """What somebody should look at; None as `cleared_ms`: it still holds."""

    id: int
    rule: str
    truck: str | None
    subject: str
    severity: str
    since_ms: int
    text: str
    next_step: str
    acknowledged_ms: int | None
    acknowledged_by: str | None
    cleared_ms: int | None


class AlarmPage(Struct, frozen=True):
    """A page of alarms, newest first."""

    items: list[Alarm]
    next: str | None


class LinkBudget(Struct, frozen=True):
    """One link's budget in its period; `exhausted_ms` is when a cap is reached by its history, None if they hold.

    `days` are the bytes of each day (UTC) so far, `by_weekday` those expected of a Monday to a Sunday.
    """

    link: str
    bytes_max: int | None
    money_max_milli: int | None
    reserve_bytes: int
    reserve_milli: int
    pooled: bool
    used_bytes: int
    left_bytes: int | None
    left_milli: int | None
    price_per_mb_milli: int
    currency: str
    spent_milli: int
    exhausted_ms: int | None
    start_ms: int
    end_ms: int
    expected_bytes: int
    expected_milli: int
    days: list[int]
    by_weekday: list[int]
    history_days: int


class Budget(Struct, frozen=True):
    """One truck's budgets; the month is the calendar's (UTC)."""

    truck: str
    month_start_ms: int
    month_end_ms: int
    links: list[LinkBudget]


class BudgetPage(Struct, frozen=True):
    """A page of budgets."""

    items: list[Budget]
    next: str | None


class Grant(Struct, frozen=True):
    """One truck's part of a pool: its grant, the most that it may still go by, and what it used."""

    truck: str
    grant: int
    held: int
    used: int


class PoolRow(Struct, frozen=True):
    """One cap for a group's link, in bytes or thousandths of the currency (`unit`: bytes or money)."""

    group: str
    link: str
    unit: str
    currency: str
    amount: int
    given: int
    used: int
    excess: int
    grants: list[Grant]
    outside: list[str]


class PoolPage(Struct, frozen=True):
    """A page of pools."""

    items: list[PoolRow]
    next: str | None


class ReconciledLine(Struct, frozen=True):
    """One span of a bill: what was billed and what was counted."""

    since_ms: int
    until_ms: int
    billed_bytes: int
    counted_bytes: int


class ReconciledBill(Struct, frozen=True):
    """A provider's bill held against the ledger; None as `drift_percent` where nothing was counted."""

    id: int
    truck: str
    link: str
    since_ms: int
    until_ms: int
    billed_bytes: int
    counted_bytes: int
    drift_bytes: int
    drift_percent: float | None
    put_ms: int
    put_by: str
    lines: list[ReconciledLine]


class BillPage(Struct, frozen=True):
    """A page of bills, newest first."""

    items: list[ReconciledBill]
    next: str | None


class AccountLine(Struct, frozen=True):
    """One link, precedence and direction, as the truck and as the gateway counted it."""

    link: str
    precedence: str
    direction: str
    truck_bytes: int
    gateway_bytes: int
    lost_bytes: int


class AccountLink(Struct, frozen=True):
    """One link as the truck billed it; shares that were lost are None where nobody can tell."""

    link: str
    billed_bytes: int
    money_milli: int
    loss_up: float | None
    loss_down: float | None


class TruckAccount(Struct, frozen=True):
    """What a truck counted itself beside what the gateway saw of it."""

    truck: str
    since_ms: int
    until_ms: int
    lines: list[AccountLine]
    links: list[AccountLink]


class Queued(Struct, frozen=True):
    """A parcel, or content that was wanted: its bytes, when the truck had it, and when it had arrived (None: not)."""

    precedence: str
    bytes: int
    at_ms: int
    arrived_ms: int | None


class Contact(Struct, frozen=True):
    """One link: the hours (Unix ms) in which it carried anything, and the bytes of the best of them."""

    link: str
    hours_ms: list[int]
    best_hour_bytes: int


class History(Struct, frozen=True):
    """What a truck had to send and fetch; all but `items` is on the first page only."""

    since_ms: int
    until_ms: int
    items: list[Queued]
    content: list[Queued]
    contacts: list[Contact]
    other_bytes: int
    next: str | None
