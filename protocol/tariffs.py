"""What a link costs, and how much of it may be spent: the parts of a signed `Config` that say so (SPEC.md, section 7).

A `Tariff` is the provider's: price, billing step, what is included, the billing period. A `Budget` is the operator's:
how much of a period may be spent, and by whom. A `Pool` is one cap for a group, given out in grants. `Power` and
`Timetable` are budgets of another kind: of the battery and of the lessons' hours. What they mean in figures is
`protocol.billing` (cost) and `protocol.budget` (caps); this module is their form, and the text that people write them
in.

They are arrays whose later items have defaults, so that more can be added at the end.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from msgspec import Meta

from protocol.numbers import GRANTS_MAX, ROAMING_MAX, WINDOWS_MAX
from protocol.windows import Window
from protocol.wire import Name, Uint, WireArray

Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]
Percent = Annotated[int, Meta(ge=0, le=100)]
Zone = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z0-9_+-]{1,31}){0,2}\Z")]
"""A name of the IANA time zone database."""
Channel = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9:./_-]{0,63}\Z")]


Milli = Annotated[int, Meta(ge=-1_000_000_000, le=1_000_000_000)]


class BillingStep(IntEnum):
    """What a provider rounds up: nothing, each datagram, or each session (ended by silence)."""

    BYTE = 0
    DATAGRAM = 1
    SESSION = 2


class BillingPeriod(IntEnum):
    """How long a bill is: from local midnight of the billing day to the next one."""

    MONTH = 0
    WEEK = 1
    DAY = 2


class Unit(IntEnum):
    """What a pool counts: bytes, or thousandths of a currency."""

    BYTES = 0
    MONEY = 1


class Box(WireArray, frozen=True):
    """A part of the earth, in hundredths of a degree, edges included: a country's rough outline is a few of them."""

    south: Annotated[int, Meta(ge=-9_000, le=9_000)]
    west: Annotated[int, Meta(ge=-18_000, le=18_000)]
    north: Annotated[int, Meta(ge=-9_000, le=9_000)]
    east: Annotated[int, Meta(ge=-18_000, le=18_000)]


class Roaming(WireArray, frozen=True):
    """Other prices in some countries, by the mobile network's country code (E.212 MCC) or by position.

    `price_per_mb_milli` None: the link must not be used there.
    """

    countries: Annotated[tuple[Annotated[int, Meta(ge=1, le=999)], ...], Meta(max_length=32)]
    boxes: Annotated[tuple[Box, ...], Meta(max_length=32)] = ()
    price_per_mb_milli: Uint | None = None
    session_milli: Uint = 0


class Tariff(WireArray, frozen=True):
    """What one link costs.

    Money is in thousandths of `currency`: a million billed bytes beyond `allowance_bytes` (of a period), and a
    session. `step_bytes` is what a datagram or session is rounded up to, `least_bytes` what it counts at least;
    `session_idle_s` of silence end a session. A month's `billing_day` that it does not have is its last; a week's 1
    is Monday, and all from 7 on Sunday. Nothing counts in the windows `free`; outside of `hours` (none: always) the
    link is not used.
    """

    link: Name
    currency: Currency = "USD"
    price_per_mb_milli: Uint = 0
    session_milli: Uint = 0
    step: BillingStep = BillingStep.BYTE
    step_bytes: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 1
    least_bytes: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    session_idle_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    allowance_bytes: Uint = 0
    period: BillingPeriod = BillingPeriod.MONTH
    billing_day: Annotated[int, Meta(ge=1, le=31)] = 1
    zone: Zone = "UTC"
    free: Annotated[tuple[Window, ...], Meta(max_length=WINDOWS_MAX)] = ()
    hours: Annotated[tuple[Window, ...], Meta(max_length=WINDOWS_MAX)] = ()
    roaming: Annotated[tuple[Roaming, ...], Meta(max_length=ROAMING_MAX)] = ()


class Shares(WireArray, frozen=True):
    """What of a budget, after the reserve, is kept for each precedence, in percent; the rest is whose comes first.

    More than 100 together is taken in proportion.
    """

    priority: Percent
    normal: Percent
    bulk: Percent


class Budget(WireArray, frozen=True):
    """How much of one link may be spent in a period of its tariff: in billed bytes, in money, or in both.

    None: no cap. The reserve is for flash alone, which may spend all. `borrow_percent` of the share of a less urgent
    precedence may be used by a more urgent one. `burst_percent` of the budget may be spent ahead of an even pace by
    normal and bulk: 100 is no pace.
    """

    link: Name
    bytes_max: Uint | None = None
    money_max_milli: Uint | None = None
    reserve_bytes: Uint = 0
    reserve_milli: Uint = 0
    shares: Shares = Shares(0, 0, 0)
    borrow_percent: Percent = 0
    burst_percent: Percent = 100


class Grant(WireArray, frozen=True):
    """One truck's part of a pool, in the pool's unit."""

    truck: Name
    amount: Uint


class Pool(WireArray, frozen=True):
    """One cap for a group's link, given out in grants: who has none has nothing.

    A truck spends at most its grant, and at most its `Budget` of that link.
    """

    link: Name
    unit: Unit
    amount: Uint
    grants: Annotated[tuple[Grant, ...], Meta(max_length=GRANTS_MAX)] = ()

    def __post_init__(self) -> None:
        if self.given > self.amount:
            raise ValueError(f"the grants of the pool of {self.link} come to {self.given}, it has {self.amount}")

    @property
    def given(self) -> int:
        """What the grants come to."""
        return sum(each.amount for each in self.grants)

    def grant(self, truck: str) -> int:
        """Return what a truck may spend of it."""
        return sum(each.amount for each in self.grants if each.truck == truck)


class Power(WireArray, frozen=True):
    """Below which value of a channel of the truck bulk waits, then normal; in thousandths of the channel's unit.

    `floor_milli` is the value that the forecast of the coming day must not fall below, for bulk to go on.
    """

    channel: Channel
    bulk_below_milli: Milli = 0
    normal_below_milli: Milli = 0
    floor_milli: Milli = 0


class Timetable(WireArray, frozen=True):
    """When lessons are on, in local time: bulk yields to them, unless its deadline comes first."""

    zone: Zone
    lessons: Annotated[tuple[Window, ...], Meta(max_length=WINDOWS_MAX)] = ()


def pool_excess(pool: Pool, held: dict[str, int]) -> int:
    """Return by how much the trucks might spend more than a pool, when some still go by other grants (0: they cannot).

    `held` is what each truck may spend by the configuration that it last said it applied. A raised grant is safe once
    the trucks whose grants were lowered for it have applied that.
    """
    granted = {each.truck: pool.grant(each.truck) for each in pool.grants}
    most = sum(max(granted.get(truck, 0), held.get(truck, 0)) for truck in granted.keys() | held.keys())
    return max(0, most - pool.amount)
