"""A policy replayed over a truck's recorded weeks: what would have gone when, over which link, and for how much. Pure.

The decisions are the truck's own: `protocol.scheduler.decide`, `protocol.terms` for caps, shares and pace,
`protocol.billing` for the cost of each datagram. The record is what the gateway has: when each parcel was taken on the
truck and how large it was, what content was wanted, in which hours each link was there. Time goes by in steps of five
minutes, and within a step a link carries what its best hour carried. A link that was not used while a cheaper one was
there may have been there too: `always` names those to be taken as such.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Final

from gateway.terms import Terms, terms_of
from protocol.billing import NANO_IN_MILLI, Cost, Session, cost_of, is_free, next_free
from protocol.budget import Cap, Spent, allowed_units
from protocol.numbers import Precedence
from protocol.profiles import HOUR_S, WEEK_H, Profile, hour_of, next_contact_s
from protocol.scheduler import Conditions, LinkView, Work, decide
from protocol.terms import share_left
from protocol.windows import Offset, Window, closing, is_open, utc

STEP_S: Final = 300
_DATAGRAM_BYTES: Final = 1_100
_WEEK_S: Final = 7 * 86_400
# A link of which no hour tells what it can: 64 kbit/s.
_HOUR_BYTES_LEAST: Final = 64_000 // 8 * 3_600


@dataclass(frozen=True, slots=True)
class Item:
    """Something that wanted to be carried: wire bytes, when it was there, and when it arrived (None: never)."""

    precedence: Precedence
    at_s: int
    bytes: int
    arrived_s: int | None


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """One link's record: the hours (Unix s of their begin) in which it was there, and its best hour's bytes."""

    hours: frozenset[int]
    best_hour_bytes: int


@dataclass(slots=True)
class _Link:
    """A link in the replay: its terms, its record, and the account of its open period."""

    terms: Terms
    record: LinkRecord
    always: bool
    contacts: Profile = field(default_factory=lambda: Profile.empty(WEEK_H))
    down_since: int | None = None
    period: int = 0
    session: Session = Session()  # noqa: RUF009 - a frozen value
    spent: dict[Precedence, Cost] = field(default_factory=dict)
    carried: int = 0
    total: Cost = Cost()  # noqa: RUF009 - a frozen value
    room: int = 0

    def is_there(self, at_s: int) -> bool:
        return self.always or at_s - at_s % HOUR_S in self.record.hours

    def billed(self) -> int:
        return sum(cost.billed for cost in self.spent.values())

    def left(self, precedence: Precedence, elapsed: float) -> int | None:
        """Return how many more bytes this precedence may spend now, by caps, shares and pace; None: no limit."""
        limits = []
        rules = self.terms.rules
        money = rules.money_cap
        for cap, of in ((rules.bytes_cap, _billed), (money, _nano)):
            if cap is None or cap.units_max is None:
                continue
            by = {each: of(cost) for each, cost in self.spent.items()}
            flash = by.get(Precedence.FLASH, 0)
            hard = allowed_units(cap, Spent(flash, sum(by.values()) - flash), precedence)
            soft = share_left(rules.budget, cap, by, precedence, elapsed).units
            limits += [each // _a_byte(cap, of is _nano) for each in (hard, soft) if each is not None]
        return min(limits, default=None)

    def carry(self, precedence: Precedence, size: int, at_s: int) -> None:
        """Pay for `size` bytes, datagram by datagram."""
        free = is_free(self.terms.tariff, at_s, self.terms.offset)
        while size > 0:
            part = min(size, _DATAGRAM_BYTES)
            size -= part
            cost, self.session = cost_of(
                self.terms.tariff,
                self.terms.price,
                self.session,
                part,
                float(at_s),
                billed_before=self.billed(),
                free=free,
            )
            self.spent[precedence] = self.spent.get(precedence, Cost()) + cost
            self.total += cost
            self.carried += part


def _billed(cost: Cost) -> int:
    return cost.billed


def _nano(cost: Cost) -> int:
    return cost.nano


def _a_byte(cap: Cap, is_money: bool) -> int:
    return max(1, cap.unit) if is_money else 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one precedence: items and bytes that arrived, those that did not, and delays in seconds."""

    precedence: Precedence
    items: int
    arrived: int
    arrived_bytes: int
    median_s: int | None
    p95_s: int | None


@dataclass(frozen=True, slots=True)
class LinkOutcome:
    """What one link carried, what was billed, and money in thousandths of its currency."""

    link: str
    carried_bytes: int
    billed_bytes: int
    money_milli: int
    currency: str
    is_priced: bool


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a policy would have come to."""

    outcomes: tuple[Outcome, ...]
    links: tuple[LinkOutcome, ...]


def replay(
    items: Sequence[Item],
    records: Mapping[str, LinkRecord],
    terms: Mapping[str, Terms],
    *,
    since_s: int,
    until_s: int,
    always: frozenset[str] = frozenset(),
    no_bulk: frozenset[str] = frozenset(),
    patience_s: float = 900.0,
    lessons: Sequence[Window] = (),
    lessons_zone: Offset = utc,
) -> Replayed:
    """Replay [since_s, until_s) under the policy in `terms`; links that have none there have no cap and no price.

    `no_bulk` are links that carry no content (`bulk = false` of edge.toml).
    """
    names = sorted(terms.keys() | records.keys())
    empty = LinkRecord(frozenset(), 0)
    links = {
        name: _Link(terms.get(name) or terms_of(None, "", name), records.get(name, empty), name in always)
        for name in names
    }
    waiting: dict[Precedence, deque[list[int]]] = {each: deque() for each in Precedence}
    coming = deque(sorted(items, key=lambda each: (each.at_s, each.precedence)))
    arrived: dict[int, int] = {}
    numbered = {id(item): number for number, item in enumerate(items)}
    for now_s in range(since_s - since_s % STEP_S, until_s, STEP_S):
        while coming and coming[0].at_s <= now_s:
            item = coming.popleft()
            waiting[item.precedence].append([numbered[id(item)], item.bytes, item.at_s])
        _turn(links, now_s)
        conditions = Conditions(
            lessons=is_open(lessons, now_s, lessons_zone),
            lessons_left_s=_in_s(closing(lessons, now_s, lessons_zone), now_s),
        )
        for precedence in Precedence:
            queue = waiting[precedence]
            while queue:
                link = _chosen(links, queue, precedence, now_s, no_bulk, patience_s, conditions)
                if link is None:
                    break
                head = queue[0]
                elapsed = link.terms.period(now_s * 1000).elapsed(now_s)
                left = link.left(precedence, elapsed)
                part = min(head[1], link.room, head[1] if left is None else left)
                if part < min(head[1], _DATAGRAM_BYTES):
                    break
                link.carry(precedence, part, now_s)
                link.room -= part
                head[1] -= part
                if not head[1]:
                    arrived[queue.popleft()[0]] = now_s + STEP_S
    return Replayed(
        tuple(outcomes(items, [arrived.get(number) for number in range(len(items))])),
        tuple(_link_outcome(name, link) for name, link in links.items() if link.carried or name in terms),
    )


def outcomes(items: Sequence[Item], arrived: Sequence[int | None]) -> list[Outcome]:
    """Return what became of each precedence, when each item arrived at the given times."""
    found = []
    for precedence in Precedence:
        mine = [(item, at) for item, at in zip(items, arrived, strict=True) if item.precedence is precedence]
        if not mine:
            continue
        there = [(item, at) for item, at in mine if at is not None]
        delays = sorted(max(0, at - item.at_s) for item, at in there)
        found.append(
            Outcome(
                precedence,
                len(mine),
                len(there),
                sum(item.bytes for item, _ in there),
                delays[len(delays) // 2] if delays else None,
                round(quantiles(delays, n=20)[-1]) if len(delays) > 1 else (delays[0] if delays else None),
            )
        )
    return found


def _turn(links: Mapping[str, _Link], now_s: int) -> None:
    """Begin a step: new periods, rooms, and what an hour that ended teaches."""
    for link in links.values():
        number = link.terms.period(now_s * 1000).number
        if number != link.period:
            link.period, link.spent = number, {}
        there = link.is_there(now_s)
        if now_s % HOUR_S == 0:
            before = now_s - HOUR_S
            link.contacts = link.contacts.learn(hour_of(before, link.terms.offset), 1_000 * link.is_there(before))
        link.down_since = None if there else (now_s if link.down_since is None else link.down_since)
        link.room = max(link.record.best_hour_bytes, _HOUR_BYTES_LEAST) * STEP_S // HOUR_S if there else 0


def _chosen(
    links: Mapping[str, _Link],
    queue: deque[list[int]],
    precedence: Precedence,
    now_s: int,
    no_bulk: frozenset[str],
    patience_s: float,
    conditions: Conditions,
) -> _Link | None:
    """Return the link that the table lets this queue use now."""
    work = Work(precedence, waited_s=float(now_s - queue[0][2]), waiting_bytes=sum(each[1] for each in queue))
    views = [_view(name, link, precedence, now_s, name not in no_bulk) for name, link in links.items()]
    for view in sorted(views, key=lambda each: each.price):
        if links[view.name].room and decide(view, views, work, patience_s=patience_s, conditions=conditions) is None:
            return links[view.name]
    return None


def _view(name: str, link: _Link, precedence: Precedence, now_s: int, bulk: bool) -> LinkView:
    terms = link.terms
    period = terms.period(now_s * 1000)
    elapsed = period.elapsed(now_s)
    left = link.left(precedence, elapsed)
    closed = bool(terms.tariff.hours) and not is_open(terms.tariff.hours, now_s, terms.offset)
    usable = link.is_there(now_s) and (left is None or left >= _DATAGRAM_BYTES) and not closed
    free = is_free(terms.tariff, now_s, terms.offset)
    price = 0 if free else terms.rules.marginal_nano(terms.price, link.billed(), precedence, elapsed)
    return LinkView(
        name,
        float(price),
        usable,
        0.0 if link.down_since is None else float(now_s - link.down_since),
        bulk,
        contact_s=None if usable else next_contact_s(link.contacts, now_s, terms.offset, _WEEK_S),
        cheaper_s=None if free else _in_s(next_free(terms.tariff, now_s, terms.offset), now_s),
    )


def _in_s(at_s: int | None, now_s: int) -> float | None:
    return None if at_s is None else float(at_s - now_s)


def _link_outcome(name: str, link: _Link) -> LinkOutcome:
    return LinkOutcome(
        name,
        link.carried,
        link.total.billed,
        -(-link.total.nano // NANO_IN_MILLI),
        link.terms.tariff.currency,
        link.terms.is_priced,
    )
