"""What a link's datagrams cost, as the provider counts: billing periods, steps, sessions, allowance, roaming. Pure.

Billed bytes are what the provider writes on the bill: the carried bytes, rounded up as the tariff says. Money is in
billionths of the tariff's currency, so that a price of one thousandth a megabyte is 1 a byte and every sum is exact.
The truck's ledger and the gateway's use these same functions; local time comes in as an offset (`protocol.windows`).
Deliberately absent: what may be spent (`protocol.budget`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.tariffs import BillingPeriod, BillingStep, Tariff
from protocol.windows import DAY_S, MINUTE_S, Offset, closing, is_open, next_opening, to_utc

NANO_IN_MILLI: Final = 1_000_000
# Near the ends of a free window nothing counts as free: an answer may come later, and clocks differ.
FREE_MARGIN_S: Final = 180
_DAYS_IN_400_YEARS: Final = 146_097


# -- periods -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Period:
    """One billing period: `number` is the local date of its first day as yyyymmdd; Unix seconds, the end excluded."""

    number: int
    starts_s: int
    ends_s: int

    def elapsed(self, now_s: float) -> float:
        """Return the part of it that is over, 0 to 1."""
        return min(1.0, max(0.0, (now_s - self.starts_s) / (self.ends_s - self.starts_s)))


def billing_period(tariff: Tariff, now_s: int, offset: Offset) -> Period:
    """Return the billing period that holds `now_s`."""
    today = (now_s + offset(now_s)) // DAY_S
    match tariff.period:
        case BillingPeriod.DAY:
            first, following = today, today + 1
        case BillingPeriod.WEEK:
            first = today - (today + 3 - (min(tariff.billing_day, 7) - 1)) % 7
            following = first + 7
        case BillingPeriod.MONTH:
            year, month, _ = civil(today)
            first = _billing_day(year, month, tariff.billing_day)
            if first > today:
                year, month = _month_after(year, month, -1)
                first = _billing_day(year, month, tariff.billing_day)
            following = _billing_day(*_month_after(year, month, 1), tariff.billing_day)
    year, month, day = civil(first)
    return Period(year * 10_000 + month * 100 + day, to_utc(first * DAY_S, offset), to_utc(following * DAY_S, offset))


def period_rule(tariff: Tariff | None) -> str:
    """Return what makes two tariffs have the same periods: when it changes, what was spent is carried over."""
    return "" if tariff is None else f"{tariff.period.name.lower()} {tariff.billing_day} {tariff.zone}"


def civil(days: int) -> tuple[int, int, int]:
    """Return year, month and day of a day number (days since 1 January 1970), in the proleptic Gregorian calendar."""
    # Count days from 1 March of year 0, so that the leap day ends a year.
    era, day_of_era = divmod(days + 719_468, _DAYS_IN_400_YEARS)
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    return era * 400 + year_of_era + (month <= 2), month, day


def day_number(year: int, month: int, day: int) -> int:
    """Return the days since 1 January 1970 of a date (`civil` undone)."""
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * _DAYS_IN_400_YEARS + day_of_era - 719_468


def _month_after(year: int, month: int, months: int) -> tuple[int, int]:
    at = year * 12 + month - 1 + months
    return at // 12, at % 12 + 1


def _billing_day(year: int, month: int, day: int) -> int:
    last = day_number(*_month_after(year, month, 1), 1) - 1
    return min(last, day_number(year, month, 1) + day - 1)


# -- places ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where a truck is, as far as it knows: the mobile network's country code, and hundredths of a degree."""

    country: int | None = None
    north: int | None = None
    east: int | None = None


NOWHERE: Final = Place()


@dataclass(frozen=True, slots=True)
class Price:
    """What a link costs where the truck is, in billionths of the currency: a billed byte, and a session."""

    byte_nano: int
    session_nano: int


def price_at(tariff: Tariff, place: Place) -> Price | None:
    """Return the price at a place; None where the link must not be used.

    The network's country counts before the position. A truck that knows neither pays the dearest of the prices that
    may hold: a budget must not break because a satellite was not seen.
    """
    home = Price(tariff.price_per_mb_milli, tariff.session_milli * NANO_IN_MILLI)
    if not tariff.roaming:
        return home
    abroad = [
        None if each.price_per_mb_milli is None else Price(each.price_per_mb_milli, each.session_milli * NANO_IN_MILLI)
        for each in tariff.roaming
    ]
    if place.country is None and (place.north is None or place.east is None):
        known = [home, *(each for each in abroad if each is not None)]
        return Price(max(each.byte_nano for each in known), max(each.session_nano for each in known))
    for each, price in zip(tariff.roaming, abroad, strict=True):
        if place.country is not None and each.countries:
            if place.country in each.countries:
                return price
        elif place.north is not None and place.east is not None:
            north, east = place.north, place.east
            if any(box.south <= north <= box.north and box.west <= east <= box.east for box in each.boxes):
                return price
    return home


# -- cost --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Session:
    """The session that a provider has open on a link: bytes carried in it, and when the last of them was."""

    carried: int = 0
    last_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Billed bytes, and money in billionths of the currency."""

    billed: int = 0
    nano: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.billed + other.billed, self.nano + other.nano)


def is_free(tariff: Tariff, now_s: int | None, offset: Offset) -> bool:
    """Return whether what is sent now is certainly in a free window, answers included."""
    return now_s is not None and is_open(tariff.free, now_s, offset, margin_s=FREE_MARGIN_S)


def next_free(tariff: Tariff, now_s: int, offset: Offset) -> int | None:
    """Return when what is sent is certainly free next (Unix s, at most a minute late); None without free windows.

    That is not when a window opens: in its first and last minutes nothing counts as free.
    """
    for at_s in range(now_s, now_s + FREE_MARGIN_S + MINUTE_S, MINUTE_S):
        if is_free(tariff, at_s, offset):
            return at_s
    opens = next_opening(tariff.free, closing(tariff.free, now_s, offset) or now_s, offset)
    return None if opens is None else opens + FREE_MARGIN_S


def cost_of(
    tariff: Tariff, price: Price, session: Session, size: int, at_s: float, *, billed_before: int, free: bool = False
) -> tuple[Cost, Session]:
    """Return what one datagram of `size` bytes costs at `at_s` (monotonic), and the session after it.

    `billed_before` are the billed bytes of the period so far: those below the allowance cost nothing.
    """
    opens = session.carried == 0 or at_s - session.last_s > tariff.session_idle_s
    before = 0 if opens else session.carried
    after = Session(before + size, at_s)
    if free:
        return Cost(), after
    match tariff.step:
        case BillingStep.BYTE:
            billed = size
        case BillingStep.DATAGRAM:
            billed = _rounded(tariff, size)
        case BillingStep.SESSION:
            billed = _rounded(tariff, after.carried) - (_rounded(tariff, before) if before else 0)
    nano = charged(tariff, price, billed, billed_before)
    return Cost(billed, nano + (price.session_nano if opens else 0)), after


def worst_cost(
    tariff: Tariff, price: Price, size: int, datagrams: int, lasts_s: float, *, billed_before: int, free: bool = False
) -> Cost:
    """Return the most that `datagrams` of `size` bytes together may cost, if they are spread over `lasts_s` seconds."""
    if free:
        return Cost()
    sessions = min(datagrams, 1 + int(lasts_s // tariff.session_idle_s))
    step = max(tariff.step_bytes - 1, tariff.least_bytes)
    match tariff.step:
        case BillingStep.BYTE:
            billed = size
        case BillingStep.DATAGRAM:
            billed = size + datagrams * step
        case BillingStep.SESSION:
            billed = size + sessions * step
    return Cost(billed, charged(tariff, price, billed, billed_before) + sessions * price.session_nano)


def paid_room(tariff: Tariff, session: Session, at_s: float) -> int:
    """Return how many more bytes the step holds that is paid for already: what is sent now in it costs nothing."""
    if tariff.step is not BillingStep.SESSION or not session.carried:
        return 0
    if at_s - session.last_s > tariff.session_idle_s:
        return 0
    return _rounded(tariff, session.carried) - session.carried


def charged(tariff: Tariff, price: Price, billed: int, billed_before: int) -> int:
    """Return the money for billed bytes, less what is still included in the period."""
    included = max(0, tariff.allowance_bytes - billed_before)
    return max(0, billed - included) * price.byte_nano


def _rounded(tariff: Tariff, size: int) -> int:
    return max(tariff.least_bytes, -(-size // tariff.step_bytes) * tariff.step_bytes)
