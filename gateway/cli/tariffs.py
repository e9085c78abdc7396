"""Tariffs, budgets, pools, power and timetable as people write them: `tariffs.sat.price_per_mb=5.50`.

Money is in whole currency with up to three decimals, bytes are a number or `30MB` (decimal, as tariffs have them),
windows are `mon-fri 22:00-06:00`. Each class here is one table of the TOML form; what it says is checked again by the
wire's own classes, as a truck will.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Literal, TypeAlias

import msgspec

from protocol.documents import Config
from protocol.errors import MalformedError
from protocol.tariffs import (
    BillingPeriod,
    BillingStep,
    Box,
    Budget,
    Grant,
    Pool,
    Power,
    Roaming,
    Shares,
    Tariff,
    Timetable,
    Unit,
)
from protocol.windows import parse_windows, write_windows

Scalar: TypeAlias = int | bool | str
Amount: TypeAlias = int | float | str
_UNITS = {"": 1, "B": 1, "kB": 1_000, "KB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000}
_MILLI = 1_000
_UNLIMITED = "unlimited"
_NEVER = "never"


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One table of the text form; what equals its default is not written."""


class TariffText(_Table, frozen=True):
    """`[tariffs.LINK]`."""

    currency: str = "USD"
    price_per_mb: Amount = 0
    price_per_session: Amount = 0
    step: Literal["byte", "datagram", "session"] = "byte"
    step_bytes: Amount = 1
    least_bytes: Amount = 0
    session_idle_s: int = 60
    allowance_bytes: Amount = 0
    period: Literal["month", "week", "day"] = "month"
    billing_day: int = 1
    zone: str = "UTC"
    free: str = ""
    hours: str = ""
    roaming: str = ""

    def tariff(self, link: str) -> Tariff:
        """Return what it says; raise `MalformedError`."""
        return Tariff(
            link,
            self.currency,
            parse_milli(self.price_per_mb),
            parse_milli(self.price_per_session),
            BillingStep[self.step.upper()],
            parse_bytes(self.step_bytes),
            parse_bytes(self.least_bytes),
            self.session_idle_s,
            parse_bytes(self.allowance_bytes),
            BillingPeriod[self.period.upper()],
            self.billing_day,
            self.zone,
            parse_windows(self.free),
            parse_windows(self.hours),
            parse_roaming(self.roaming),
        )


class BudgetText(_Table, frozen=True):
    """`[budgets.LINK]`; `shares` is priority/normal/bulk in percent."""

    bytes_max: Amount = _UNLIMITED
    money_max: Amount = _UNLIMITED
    reserve_bytes: Amount = 0
    reserve_money: Amount = 0
    shares: str = "0/0/0"
    borrow_percent: int = 0
    burst_percent: int = 100

    def budget(self, link: str) -> Budget:
        """Return what it says; raise `MalformedError`."""
        parts = [part.strip() for part in self.shares.split("/")]
        if len(parts) != 3 or not all(re.fullmatch(r"[0-9]{1,3}", part) for part in parts):
            raise MalformedError(f"shares {self.shares!r}: write priority/normal/bulk in percent, e.g. 20/50/10")
        priority, normal, bulk = map(int, parts)
        if priority + normal + bulk > 100:
            raise MalformedError(f"the shares of {link} come to {priority + normal + bulk} percent")
        bytes_max = None if self.bytes_max == _UNLIMITED else parse_bytes(self.bytes_max)
        money_max = None if self.money_max == _UNLIMITED else parse_milli(self.money_max)
        reserve_bytes, reserve_milli = parse_bytes(self.reserve_bytes), parse_milli(self.reserve_money)
        if bytes_max is not None and reserve_bytes > bytes_max:
            raise MalformedError(f"budget of {link}: reserve_bytes is more than bytes_max")
        if money_max is not None and reserve_milli > money_max:
            raise MalformedError(f"budget of {link}: reserve_money is more than money_max")
        shares = Shares(priority, normal, bulk)
        return Budget(
            link, bytes_max, money_max, reserve_bytes, reserve_milli, shares, self.borrow_percent, self.burst_percent
        )


class PoolText(_Table, frozen=True):
    """`[pools.LINK]`: either bytes or money; `grants` is `TRUCK AMOUNT, TRUCK AMOUNT`."""

    bytes_max: Amount | None = None
    money_max: Amount | None = None
    grants: str = ""

    def pool(self, link: str) -> Pool:
        """Return what it says; raise `MalformedError`."""
        if (self.bytes_max is None) == (self.money_max is None):
            raise MalformedError(f"the pool of {link} needs bytes_max or money_max, and not both")
        parse = parse_bytes if self.money_max is None else parse_milli
        whole = self.bytes_max if self.money_max is None else self.money_max
        assert whole is not None
        grants = []
        for part in filter(None, (part.strip() for part in self.grants.split(","))):
            truck, _, amount = part.partition(" ")
            grants.append(Grant(truck, parse(amount.strip())))
        return Pool(link, Unit.BYTES if self.money_max is None else Unit.MONEY, parse(whole), tuple(grants))


class PowerText(_Table, frozen=True):
    """`[power]`: below which value of `channel` bulk waits, then normal; `floor` is for the forecast."""

    channel: str
    bulk_below: Amount = 0
    normal_below: Amount = 0
    floor: Amount = 0

    def power(self) -> Power:
        """Return what it says; raise `MalformedError`."""
        return Power(
            self.channel, *(parse_milli(each, signed=True) for each in (self.bulk_below, self.normal_below, self.floor))
        )


class TimetableText(_Table, frozen=True):
    """`[timetable]`: when lessons are on, e.g. `mon-fri 08:00-16:00`."""

    zone: str
    lessons: str = ""

    def timetable(self) -> Timetable:
        """Return what it says; raise `MalformedError`."""
        return Timetable(self.zone, parse_windows(self.lessons))


def spend_settings(config: Config) -> dict[str, Scalar]:
    """Return a configuration's tariffs, budgets, pools, power and timetable under their dotted keys."""
    tables: dict[str, _Table] = {}
    tables |= {f"tariffs.{each.link}": _tariff_text(each) for each in config.tariffs}
    tables |= {f"budgets.{each.link}": _budget_text(each) for each in config.budgets}
    tables |= {f"pools.{each.link}": _pool_text(each) for each in config.pools}
    if config.power is not None:
        values = (config.power.bulk_below_milli, config.power.normal_below_milli, config.power.floor_milli)
        bulk, normal, floor = map(write_milli, values)
        tables["power"] = PowerText(channel=config.power.channel, bulk_below=bulk, normal_below=normal, floor=floor)
    if config.timetable is not None:
        lessons = write_windows(config.timetable.lessons)
        tables["timetable"] = TimetableText(zone=config.timetable.zone, lessons=lessons)
    found: dict[str, Scalar] = {}
    for name, table in tables.items():
        told = _told(table)
        found |= {f"{name}.{field}": value for field, value in told.items()}
        if isinstance(table, TariffText | BudgetText) and not told:
            # A table that says nothing still says something: that there is a tariff, all of it at its defaults.
            found[f"{name}.{'currency' if isinstance(table, TariffText) else 'burst_percent'}"] = (
                table.currency if isinstance(table, TariffText) else table.burst_percent
            )
    return found


def _told(table: _Table) -> dict[str, Scalar]:
    # `omit_defaults` knows a default by its identity, which a text that was put together has not.
    defaults = {each.name: each.default for each in msgspec.structs.fields(table)}
    return {field: value for field, value in msgspec.to_builtins(table).items() if value != defaults[field]}


def _tariff_text(tariff: Tariff) -> TariffText:
    return TariffText(
        currency=tariff.currency,
        price_per_mb=write_milli(tariff.price_per_mb_milli),
        price_per_session=write_milli(tariff.session_milli),
        step=tariff.step.name.lower(),  # type: ignore[arg-type]
        step_bytes=tariff.step_bytes,
        least_bytes=tariff.least_bytes,
        session_idle_s=tariff.session_idle_s,
        allowance_bytes=tariff.allowance_bytes,
        period=tariff.period.name.lower(),  # type: ignore[arg-type]
        billing_day=tariff.billing_day,
        zone=tariff.zone,
        free=write_windows(tariff.free),
        hours=write_windows(tariff.hours),
        roaming="; ".join(map(_write_roaming, tariff.roaming)),
    )


def _budget_text(budget: Budget) -> BudgetText:
    shares = budget.shares
    return BudgetText(
        bytes_max=_UNLIMITED if budget.bytes_max is None else budget.bytes_max,
        money_max=_UNLIMITED if budget.money_max_milli is None else write_milli(budget.money_max_milli),
        reserve_bytes=budget.reserve_bytes,
        reserve_money=write_milli(budget.reserve_milli),
        shares=f"{shares.priority}/{shares.normal}/{shares.bulk}",
        borrow_percent=budget.borrow_percent,
        burst_percent=budget.burst_percent,
    )


def _pool_text(pool: Pool) -> PoolText:
    is_money = pool.unit is Unit.MONEY
    grants = ", ".join(f"{each.truck} {write_milli(each.amount) if is_money else each.amount}" for each in pool.grants)
    if is_money:
        return PoolText(money_max=write_milli(pool.amount), grants=grants)
    return PoolText(bytes_max=pool.amount, grants=grants)


# -- figures -----------------------------------------------------------------------------------------------------------


def parse_bytes(value: Amount) -> int:
    """Return the bytes that `30000000`, `30MB` or `1.5 GB` are; raise `MalformedError`."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]{0,2})", str(value))
    if found is None or found[2] not in _UNITS:
        raise MalformedError(f"{value!r} are no bytes: write 30000000, 500kB, 30MB or 1.5GB")
    count = Decimal(found[1]) * _UNITS[found[2]]
    if count != int(count):
        raise MalformedError(f"{value!r} is not a whole number of bytes")
    return int(count)


def parse_milli(value: Amount, *, signed: bool = False) -> int:
    """Return thousandths of `5`, `5.50` or `0.001`; raise `MalformedError`."""
    try:
        amount = Decimal(str(value)) * _MILLI
    except InvalidOperation:
        raise MalformedError(f"{value!r} is no amount: write 5 or 5.50, without a currency") from None
    if not amount.is_finite() or amount != int(amount) or abs(amount) >= 1 << 62 or (amount < 0 and not signed):
        raise MalformedError(f"{value!r} is no amount: it has at most three decimals{'' if signed else ' and no sign'}")
    return int(amount)


def write_milli(milli: int) -> Amount:
    """Return thousandths as people write them: 5, "5.5", "0.001"."""
    if milli % _MILLI == 0:
        return milli // _MILLI
    return format(Decimal(milli) / _MILLI, "f").rstrip("0")


def parse_roaming(text: str) -> tuple[Roaming, ...]:
    """Return what `640: 12.5; 641,646: never; -1.5/29.5/4.3/35: 8 + 0.1/session` says; raise `MalformedError`."""
    return tuple(_parse_roaming(part.strip()) for part in text.split(";") if part.strip())


def _parse_roaming(text: str) -> Roaming:
    where, colon, price = (part.strip() for part in text.partition(":"))
    countries, boxes = [], []
    for place in (each.strip() for each in where.split(",")):
        if re.fullmatch(r"[0-9]{1,3}", place):
            countries.append(int(place))
        elif place.count("/") == 3:
            boxes.append(Box(*(parse_milli(each, signed=True) // 10 for each in place.split("/"))))
        else:
            colon = ""
    money, plus, session = (part.strip() for part in price.partition("+"))
    if not colon or (plus and not session.endswith("/session")):
        raise MalformedError(
            f"{text!r} is no roaming price: write `640,641: 12.50`, `646: never` or "
            "`SOUTH/WEST/NORTH/EAST: 8 + 0.10/session`"
        )
    if money == _NEVER:
        return Roaming(tuple(countries), tuple(boxes))
    session_milli = parse_milli(session.removesuffix("/session").strip()) if plus else 0
    return Roaming(tuple(countries), tuple(boxes), parse_milli(money), session_milli)


def _write_roaming(each: Roaming) -> str:
    boxes = [
        "/".join(str(write_milli(edge * 10)) for edge in (box.south, box.west, box.north, box.east))
        for box in each.boxes
    ]
    where = ",".join([*map(str, each.countries), *boxes])
    if each.price_per_mb_milli is None:
        return f"{where}: {_NEVER}"
    session = f" + {write_milli(each.session_milli)}/session" if each.session_milli else ""
    return f"{where}: {write_milli(each.price_per_mb_milli)}{session}"
