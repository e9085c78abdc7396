"""Limits and changes are told at once, once, over restarts, and never as often as a channel flaps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from edge.triggers import Limit, Told, Triggers, merged, signed_limits
from protocol.errors import LocalError, QueueFullError
from protocol.messages import unseal
from protocol.numbers import ParcelKind, Precedence
from protocol.schema import Channel
from tests.edge.trucks import SCHEMA, Truck

LOW = Limit(channel="bat_v", below=24.0, clear=25.0, precedence="flash", pause_s=0)
HIGH = Limit(channel="pv_w", above=100, precedence="normal", pause_s=600)
CHANGE = Told(on_change={"pv_w": "normal"})


class Watched:
    """A truck whose rows pass by triggers."""

    def __init__(self, folder: Path) -> None:
        self.truck = Truck(folder)
        self.told = Told(limits=(LOW,))

    async def start(self, told: Told | None = None) -> None:
        self.told = told or self.told
        await self.truck.start()
        await self._watch()

    async def _watch(self) -> None:
        self.triggers = Triggers(self.truck.recorder)
        await self.triggers.watch("solar", SCHEMA.channels, self.told)

    async def restart(self) -> None:
        await self.truck.restart()
        await self._watch()

    async def rows(self, *rows: tuple[int | None, int | None], every_s: float = 60) -> None:
        for row in rows:
            self.truck.monotonic.now += every_s
            await self.triggers.on_row("solar", self.truck.monotonic.now, row)

    async def volts(self, *values: int) -> None:
        await self.rows(*((value, 0) for value in values))

    @property
    def events(self) -> list[tuple[str, str]]:
        names = ("limit.crossed", "limit.cleared", "channel.changed")
        return [(each.name, str(each.values["value"])) for each in self.truck.events() if each.name in names]


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    await watched.truck.stop()


async def test_a_crossing_is_told_at_once_with_its_precedence_and_its_rows_stay(watched: Watched) -> None:
    await watched.start()
    await watched.volts(2500, 2399)
    assert watched.events == [("limit.crossed", "23.99 V")]
    (event,) = [each for each in watched.truck.events() if each.name == "limit.crossed"]
    assert event.values == {"channel": "bat_v", "value": "23.99 V", "limit": "below 24"}
    sealed = [row[0] for row in watched.truck.database.rows("SELECT sealed FROM parcels WHERE kind = 2 ORDER BY id")]
    assert unseal(sealed[-1]).precedence is Precedence.FLASH
    assert watched.truck.open_rows() == 2


async def test_it_is_over_only_beyond_the_hysteresis(watched: Watched) -> None:
    await watched.start()
    await watched.volts(2399, 2410, 2390, 2499, 2500, 2410, 2400, 2399)
    assert watched.events == [("limit.crossed", "23.99 V"), ("limit.cleared", "25 V"), ("limit.crossed", "23.99 V")]


async def test_a_value_at_the_limit_has_not_crossed_it(watched: Watched) -> None:
    await watched.start(Told(limits=(LOW, HIGH)))
    await watched.rows((2400, 100))
    assert watched.events == []
    await watched.rows((2399, 101))
    assert len(watched.events) == 2


async def test_a_channel_that_flaps_tells_how_it_stands_once_in_a_pause(watched: Watched) -> None:
    await watched.start(Told(limits=(HIGH,)))
    await watched.rows(*[(2500, 200 * (at % 2)) for at in range(60)])
    assert 3 <= len(watched.events) <= 7
    assert [name for name, _ in watched.events][:2] == ["limit.crossed", "limit.cleared"]
    await watched.rows((2500, 200), every_s=601)
    assert watched.events[-1][0] == "limit.crossed"


async def test_a_restart_tells_nothing_twice_and_misses_nothing(watched: Watched) -> None:
    await watched.start()
    await watched.volts(2399)
    await watched.restart()
    await watched.volts(2398, 2450)
    assert [name for name, _ in watched.events] == ["limit.crossed"]
    await watched.restart()
    await watched.volts(2500)
    assert [name for name, _ in watched.events] == ["limit.crossed", "limit.cleared"]


async def test_a_missing_value_crosses_nothing(watched: Watched) -> None:
    await watched.start()
    await watched.rows((None, None), (2399, None), (None, None))
    assert [name for name, _ in watched.events] == ["limit.crossed"]


async def test_every_change_is_told_and_the_first_value_is_none(watched: Watched) -> None:
    await watched.start(CHANGE)
    await watched.rows((0, 3), (0, 3), (0, 4), (0, 4))
    await watched.restart()
    await watched.rows((0, 4), (0, 5))
    assert watched.events == [("channel.changed", "4 W"), ("channel.changed", "5 W")]
    (_, last) = [each for each in watched.truck.events() if each.name == "channel.changed"]
    assert last.values["before"] == "4 W"


async def test_what_could_not_be_told_is_told_with_the_next_row(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watched.start()
    add = watched.truck.queue.add

    def full(kind: ParcelKind, *what: object, **options: object) -> None:
        raise QueueFullError("full")

    monkeypatch.setattr(watched.truck.queue, "add", full)
    await watched.volts(2399)
    monkeypatch.setattr(watched.truck.queue, "add", add)
    assert watched.events == []
    await watched.volts(2398)
    assert watched.events == [("limit.crossed", "23.98 V")]
    assert watched.truck.open_rows() == 2


async def test_a_channel_may_be_named_without_its_collector(watched: Watched) -> None:
    await watched.start()
    await watched.triggers.watch("bat_v", (Channel("bat_v.x", "V", 10),), Told(limits=(Limit(channel="x", above=1),)))
    assert watched.triggers.watched("bat_v") == ("limit.bat_v.bat_v.x.above.1.1",)


async def test_a_channel_that_is_not_there_stops_no_telemetry(watched: Watched) -> None:
    await watched.start(Told(limits=(Limit(channel="nothing", above=1),), on_change={"nor_this": "flash"}))
    await watched.volts(2399)
    assert (watched.events, watched.truck.open_rows()) == ([], 1)


@pytest.mark.parametrize(
    "keys",
    [
        {}, {"below": 1.0, "above": 2.0}, {"below": 24.0, "clear": 23.0}, {"above": 24.0, "clear": 25.0},
        {"above": float("nan")}, {"above": 1.0, "precedence": "soon"}, {"above": 1.0, "pause_s": -1}, {"over": 1.0},
    ],
)  # fmt: skip
def test_a_limit_that_cannot_be_is_refused(keys: dict[str, object]) -> None:
    with pytest.raises((ValueError, msgspec.ValidationError)):
        msgspec.convert({"channel": "x", **keys}, Limit)


def test_a_signed_configuration_sets_limits_in_place_of_the_files() -> None:
    signed = signed_limits({"limit.solar.bat_v": "below=23.5 clear=24 precedence=flash", "limit.host.cpu": "", "x": 1})
    (limit,) = merged(Told(limits=(LOW, HIGH)), "solar", signed).limits[1:]
    assert (limit.below, limit.clear, limit.precedence) == (23.5, 24.0, "flash")
    assert merged(Told(limits=(LOW, HIGH)), "solar", signed).limits[0] == HIGH
    assert merged(Told(limits=(Limit(channel="cpu", above=1),)), "host", signed).limits == ()
    assert merged(Told(limits=(LOW,)), "other", signed).limits == (LOW,)


@pytest.mark.parametrize("text", ["below", "below=x", "above=1 below=2", "over=3", "above=1 precedence=soon", 5])
def test_a_signed_limit_that_does_not_hold_refuses_the_configuration(text: str | int) -> None:
    with pytest.raises(LocalError, match=r"limit\.solar\.bat_v"):
        signed_limits({"limit.solar.bat_v": text})
