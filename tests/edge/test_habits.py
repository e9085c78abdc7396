"""What the truck learns of itself: where it is, how the battery falls, when a link is usually up."""

from __future__ import annotations

from pathlib import Path

from edge.clock import Clock
from edge.habits import Habits
from protocol.billing import Place
from protocol.scheduler import FINE
from protocol.schema import Channel
from protocol.tariffs import Power, Timetable
from protocol.windows import parse_windows
from store.database import open_database
from store.schema import STATE
from store.settings import Settings

MONDAY_S = 1_795_996_800  # 2026-11-30 00:00 UTC
CHANNELS = {
    "gps": (Channel("gps.lat", "lat", 10_000, 0, 1), Channel("gps.lon", "lon", 10_000, 0, 1)),
    "lte": (Channel("lte.operator", "", 1, 0, 1),),
    "solar": (Channel("solar.soc", "%", 10, 0, 1),),
}


class Link:
    def __init__(self, name: str) -> None:
        self.name, self.usable, self.last_contact = name, True, None


class Bench:
    """Habits with a clock that a test turns."""

    def __init__(self, folder: Path) -> None:
        self.up_s = 0.0
        self.database = open_database(folder / "state.db", schema=STATE, share_bytes=1 << 22)
        self.settings = Settings(self.database)
        self.links = [Link("sat"), Link("depot")]
        self.begin()

    def begin(self) -> None:
        clock = Clock(boot=1, floor_s=MONDAY_S, monotonic=lambda: self.up_s)
        clock.learn(MONDAY_S + int(self.up_s), 0.0)
        self.habits = Habits(self.settings, clock, ["sat", "depot"])

    async def row(self, name: str, *cells: int | None) -> None:
        async def taken(*_: object) -> None:
            return None

        await self.habits.watch(taken, CHANNELS)(name, self.up_s, cells)

    def hour(self, *, passes_s: float = 3_600) -> None:
        self.up_s += passes_s
        self.habits.keep(self.habits.observe(self.links))


async def test_the_place_is_the_modems_country_and_the_receivers_position(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.habits.place() == Place()
    await bench.row("gps", -12_921, 368_200)
    assert bench.habits.place() == Place(None, -129, 3_682)
    await bench.row("lte", 63_902)
    assert bench.habits.place() == Place(639, -129, 3_682)
    bench.up_s += 7 * 3_600
    assert bench.habits.place() == Place()
    await bench.row("lte", 310_410)
    assert bench.habits.place() == Place(310)


async def test_a_low_battery_and_lessons_are_conditions(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.habits.conditions() == FINE
    lessons = Timetable("Africa/Nairobi", parse_windows("mon 08:00-10:00"))
    bench.habits.set_rules(Power("solar.soc", 60_000, 30_000), lessons)
    bench.up_s = 5.5 * 3_600  # 08:30 in Nairobi
    await bench.row("solar", 450)
    found = bench.habits.conditions()
    assert (found.low_for_bulk, found.low_for_normal, found.channel) == (True, False, "solar.soc")
    assert (found.lessons, found.lessons_left_s) == (True, 5_400)
    bench.up_s += 7_200
    assert bench.habits.conditions() == FINE  # lessons are over, and the battery was not heard of for long
    await bench.row("solar", 290)
    assert bench.habits.conditions().low_for_normal


async def test_the_forecast_comes_from_the_trucks_own_nights(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.habits.set_rules(Power("solar.soc", 0, 0, 30_000), None)
    soc = 900
    for hour in range(50):
        soc += 80 if 6 <= (hour + 1) % 24 < 14 else -40
        bench.up_s += 3_600
        await bench.row("solar", soc)
        bench.hour(passes_s=0)
    assert (hour + 1) % 24 == 2
    await bench.row("solar", 700)
    assert not bench.habits.conditions().low_for_bulk
    await bench.row("solar", 400)
    assert bench.habits.conditions().low_for_bulk
    bench.begin()  # after a restart the profile is still there
    bench.habits.set_rules(Power("solar.soc", 0, 0, 30_000), None)
    await bench.row("solar", 400)
    assert bench.habits.conditions().low_for_bulk


def test_a_weekly_visit_is_learnt_and_outlives_a_restart(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    depot = bench.links[1]
    for hour in range(3 * 168):
        up = hour % 168 in (84, 85)
        depot.usable = up
        if up:
            depot.last_contact = bench.up_s + 1_800
        bench.hour()
    bench.begin()
    assert bench.habits.contact_s("depot") == 84 * 3_600
    assert bench.habits.contact_s("sat") is None
