"""A week of a truck with a 30 MB satellite month, a flapping 4G and a weekly depot visit: what the schedule costs.

The product's own parts decide and account, with a clock that the benchmark turns: scheduler, terms, link budgets,
habits, ledger. Links carry a request or do not; nothing is encoded or sent, so that weeks pass in a minute. Three
weeks go by first, so that habits are learnt; the fourth is measured against an omniscient schedule, which knows when
each link will be up and sends everything over the cheapest one within its deadline. The provider's bill is made
apart, from what was carried, and compared with the ledger's money to the billionth.
"""

from __future__ import annotations

import random
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge.choice import Choice
from edge.config import LinkSettings
from edge.habits import Habits
from edge.linkbudget import LinkBudget, apply_terms
from edge.spending import Charge, Spending
from edge.waits import Waits
from protocol.errors import BudgetExceededError
from protocol.numbers import Precedence
from protocol.profiles import HOUR_S
from protocol.scheduler import Work
from protocol.tariffs import BillingStep, Budget, Shares, Tariff
from protocol.terms import Terms
from store.coapmeter import Datagram, Direction
from store.database import open_database
from store.ledger import Ledger
from store.links import open_links
from store.schema import STATE
from store.settings import Settings

NAME = "budget"
_FLASH, _PRIORITY, _NORMAL, _BULK = Precedence
_DAY_S: Final = 86_400
_MONDAY_S: Final = 1_795_996_800  # 2026-11-30 00:00 UTC
_TICK_S: Final = 60
_WEEKS_BEFORE: Final = 3
_REST_S: Final = 300
_OVERHEAD: Final = 60
_ANSWER: Final = 90
_PIECE: Final = 1_100
# What each precedence is promised: two minutes for what goes at once, four hours for telemetry, five days for content.
_DEADLINES: Final = {_FLASH: 120, _PRIORITY: 120, _NORMAL: 4 * HOUR_S, _BULK: 5 * _DAY_S}
_PATIENCE_S: Final = 4 * HOUR_S - 900
_SAT = Tariff(
    "sat", "USD", 5_000, 20, BillingStep.SESSION, 500, session_idle_s=60, billing_day=5, zone="Africa/Nairobi"
)
_SAT_BUDGET = Budget("sat", 30_000_000, None, 500_000, shares=Shares(10, 60, 0), burst_percent=10)
_LTE = Tariff("lte", "USD", 10)
_CONTENT_BYTES: Final = 4_000_000


@dataclass(slots=True)
class _Item:
    precedence: Precedence
    at_s: int
    size: int
    done_s: int | None = None

    @property
    def due_s(self) -> int:
        return self.at_s + _DEADLINES[self.precedence]


@dataclass(slots=True)
class _Link:
    """A link as `Choice` knows it, with the truth about when it is up."""

    name: str
    ups: list[tuple[int, int]]
    settings: LinkSettings
    spending: Spending
    usable: bool = True
    down_since: float = 0.0
    rests_until: float = 0.0
    last_contact: float | None = None
    now: float = 0.0
    carried: list[tuple[int, int]] = field(default_factory=list)  # (second, bytes), what the provider sees

    @property
    def resting(self) -> bool:
        return not self.usable and self.now < self.rests_until

    def affordable(self, precedence: Precedence) -> bool:
        return self.spending.affordable(precedence)

    def is_up(self, at_s: int) -> bool:
        found = bisect_left(self.ups, (at_s + 1, 0)) - 1
        return found >= 0 and at_s < self.ups[found][1]


class _Clock:
    def __init__(self) -> None:
        self.now = 0

    def monotonic(self) -> float:
        return float(self.now)

    def wall_s(self) -> float | None:
        return float(_MONDAY_S + self.now)


def _weather(seed: random.Random, weeks: int) -> dict[str, list[tuple[int, int]]]:
    """Return when links are up: 4G flaps, is off at night and gone for hours now and then; depot on Thursdays."""
    lte, at = [], 0
    while at < weeks * 7 * _DAY_S:
        up, down = seed.expovariate(1 / 2_400), seed.expovariate(1 / 900)
        if seed.random() < 0.012:
            down += seed.uniform(2, 10) * HOUR_S
        lte += list(_without_nights(int(at), int(at + up)))
        at += up + down
    depot = [(day * _DAY_S + 12 * HOUR_S, day * _DAY_S + 14 * HOUR_S) for day in range(3, 7 * weeks, 7)]
    return {"sat": [(0, weeks * 7 * _DAY_S)], "lte": lte, "depot": depot}


def _without_nights(start: int, end: int) -> Iterator[tuple[int, int]]:
    for day in range(start // _DAY_S, end // _DAY_S + 1):
        low, high = max(start, day * _DAY_S + 5 * HOUR_S), min(end, day * _DAY_S + 22 * HOUR_S)
        if low < high:
            yield low, high


def _work(seed: random.Random, weeks: int) -> list[_Item]:
    """Return what is to be sent: batches, events, alarms, and some content on Mondays."""
    items = [_Item(_NORMAL, at, 900) for at in range(0, weeks * 7 * _DAY_S, 900)]
    for day in range(weeks * 7):
        items += [_Item(_PRIORITY, day * _DAY_S + seed.randrange(_DAY_S), 300) for _ in range(6)]
        items += [_Item(_FLASH, day * _DAY_S + seed.randrange(_DAY_S), 200) for _ in range(2)]
        if day % 7 == 0:
            items += [_Item(_BULK, day * _DAY_S + 8 * HOUR_S, _PIECE) for _ in range(_CONTENT_BYTES // _PIECE)]
    return sorted((each for each in items if each.due_s < weeks * 7 * _DAY_S), key=lambda each: each.at_s)


class _Truck:
    """The product's parts, and the loop around them that sends what may go."""

    def __init__(self, folder: Path, seed: random.Random, weeks: int) -> None:
        self.clock = _Clock()
        self.store = open_links(folder / "links.db", {})
        state = open_database(folder / "state.db", schema=STATE, share_bytes=1 << 24)
        names = ("sat", "lte", "depot")
        self.habits = Habits(Settings(state), self.clock, names)  # type: ignore[arg-type]
        terms = [Terms(_SAT, _SAT_BUDGET), Terms(_LTE, Budget("lte")), Terms(Tariff("depot"), Budget("depot"))]
        self.budgets = {
            each.tariff.link: LinkBudget(
                each, self.store.ledger, wall_s=self.clock.wall_s, monotonic=self.clock.monotonic
            )
            for each in terms
        }
        apply_terms(self.budgets, self.store.ledger, terms)
        ups = _weather(seed, weeks)
        self.links = [_Link(name, ups[name], LinkSettings(name=name), Spending(self.budgets[name])) for name in names]
        self.choice = Choice(
            self.links,
            self.budgets,
            self.clock,
            self.habits,
            patience_s=_PATIENCE_S,  # type: ignore[arg-type]
        )
        self.waits = Waits(self.clock.monotonic)

    @property
    def ledger(self) -> Ledger:
        return self.store.ledger

    def live(self, items: Sequence[_Item], weeks: int) -> None:
        """Pass the weeks, a minute at a time."""
        waiting: list[_Item] = []
        coming = iter(items)
        following = next(coming, None)
        for self.clock.now in range(0, weeks * 7 * _DAY_S, _TICK_S):
            while following is not None and following.at_s <= self.clock.now:
                waiting.append(following)
                following = next(coming, None)
            if self.clock.now % HOUR_S == 0:
                self.habits.observe(self.links)
            for link in self.links:
                link.now = float(self.clock.now)
            if waiting:
                self._pass(waiting)
                waiting = [each for each in waiting if each.done_s is None]

    def _pass(self, waiting: list[_Item]) -> None:
        for precedence in Precedence:
            mine = [each for each in waiting if each.precedence is precedence]
            if not mine:
                continue
            sizes = {precedence: sum(each.size for each in mine)}
            work = Work(precedence, None, float(self.clock.now - mine[0].at_s), sizes[precedence])
            deadline_s = _MONDAY_S + mine[0].due_s if precedence is _BULK else None
            for link in self.links:
                # A minute of a link carries so much of one class; the depot more.
                for item in mine[: 400 if link.name == "depot" else 40]:
                    if item.done_s is not None:
                        continue
                    if self.choice.why(link, work, deadline_s=deadline_s) is not None or not self._send(link, item):
                        break

    def _send(self, link: _Link, item: _Item) -> bool:
        try:
            charge = link.spending.open(item.precedence, "bench", request_bytes=item.size, answer_bytes=_ANSWER)
        except BudgetExceededError as failure:
            self.choice.purses.refused(link, item.precedence, failure, flying=False)
            return False
        is_up = link.is_up(self.clock.now)
        self._datagram(link, charge, Direction.SENT, item.size + _OVERHEAD)
        if is_up:
            self._datagram(link, charge, Direction.RECEIVED, _ANSWER)
            item.done_s = self.clock.now
            link.last_contact, link.usable = float(self.clock.now), True
        else:
            if link.usable:
                link.usable, link.down_since = False, float(self.clock.now)
            link.rests_until = float(self.clock.now + _REST_S)
        link.spending.settle(charge)
        return is_up

    def _datagram(self, link: _Link, charge: Charge, direction: Direction, size: int) -> None:
        link.spending.on_datagram(Datagram(direction, size, ("192.0.2.1", 5683), charge))
        link.carried.append((self.clock.now, size))


def _bill_nano(tariff: Tariff, carried: Sequence[tuple[int, int]]) -> int:
    """Return the provider's bill for what was carried, made here from the tariff's words alone."""
    sessions: list[list[int]] = []  # [last second, bytes]
    for at_s, size in carried:
        if tariff.step is BillingStep.SESSION and sessions and at_s - sessions[-1][0] <= tariff.session_idle_s:
            sessions[-1] = [at_s, sessions[-1][1] + size]
        else:
            sessions.append([at_s, size])
    billed = sum(-(-size // tariff.step_bytes) * tariff.step_bytes for _, size in sessions)
    return billed * tariff.price_per_mb_milli + len(sessions) * tariff.session_milli * 1_000_000


def _omniscient_nano(truck: _Truck, items: Sequence[_Item]) -> tuple[int, int]:
    """Return the money, and the number of items done in time, of a schedule that knows all the weather.

    Each item goes over the cheapest link that is up before it is due, as late as that allows where a session costs:
    what still needs the satellite is put into as few sessions as the deadlines need.
    """
    done, sat = 0, []
    carried: dict[str, list[tuple[int, int]]] = {"lte": [], "depot": [], "sat": []}
    links = {each.name: each for each in truck.links}
    for item in items:
        size = item.size + _OVERHEAD + _ANSWER
        for name in ("depot", "lte"):
            at_s = _first_up(links[name].ups, item.at_s, item.due_s)
            if at_s is not None:
                carried[name].append((at_s, size))
                done += 1
                break
        else:
            sat.append(item)
            done += 1
    # Fewest sessions: the earliest deadline opens one, and all that is here by then shares it.
    left = sorted(sat, key=lambda each: each.due_s)
    while left:
        at_s = left[0].due_s
        carried["sat"] += [(at_s, each.size + _OVERHEAD + _ANSWER) for each in left if each.at_s <= at_s]
        left = [each for each in left if each.at_s > at_s]
    nano = sum(_bill_nano(truck.budgets[name].terms.tariff, sorted(each)) for name, each in carried.items() if each)
    return nano, done


def _first_up(ups: Sequence[tuple[int, int]], from_s: int, until_s: int) -> int | None:
    found = max(0, bisect_left(ups, (from_s + 1, 0)) - 1)
    for start, end in ups[found : found + 2]:
        at_s = max(start, from_s)
        if at_s < end and at_s <= until_s:
            return at_s
    return None


def run(args: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Return the figures of some seeds (first argument: how many, 3)."""
    seeds, ratios, hits, wanted, over, error, by_class = int(args[0]) if args else 3, [], 0, 0, 0, 0, {}
    weeks = _WEEKS_BEFORE + 1
    spent = best = 0.0
    for number in range(1, seeds + 1):
        seed = random.Random(number)
        with tempfile.TemporaryDirectory() as folder:
            truck = _Truck(Path(folder), seed, weeks)
            items = _work(seed, weeks)
            truck.live(items, weeks)
            since = _WEEKS_BEFORE * 7 * _DAY_S
            week = [each for each in items if each.at_s >= since]
            real = 0
            for link in truck.links:
                tariff = truck.budgets[link.name].terms.tariff
                whole = sum(each.cost.nano for each in truck.ledger.costs() if each.link == link.name)
                error += abs(whole - _bill_nano(tariff, link.carried))
                real += _bill_nano(tariff, [each for each in link.carried if each[0] >= since])
                if link.name == "sat":
                    over += max(0, truck.ledger.booked("sat") - (_SAT_BUDGET.bytes_max or 0))
            ideal, _ = _omniscient_nano(truck, week)
            ratios.append(real / ideal)
            spent, best = spent + real / 1e9, best + ideal / 1e9
            for item in week:
                met = item.done_s is not None and item.done_s <= item.due_s
                wanted, hits = wanted + 1, hits + met
                tally = by_class.setdefault(item.precedence, [0, 0])
                tally[0] += met
                tally[1] += 1
            truck.store.close()
    classes = ", ".join(f"{each.name.lower()} {met / whole:.1%}" for each, (met, whole) in sorted(by_class.items()))
    return [
        (
            f"a week's money against an omniscient schedule, {seeds} seeds",
            f"{spent / best:.2f} x (worst seed {max(ratios):.2f} x; {spent / seeds:.3f} USD a week)",
            f"{best / seeds:.3f} USD omniscient",
            "1.1 x",
        ),
        ("deadlines met", f"{hits / wanted:.2%} ({classes})", "all", "all"),
        ("satellite bytes over the budget", f"{over} B", "-", "0 B"),
        ("ledger's money against the provider's bill", f"{error / 1e9:.9f} USD apart", "-", "0"),
    ]
