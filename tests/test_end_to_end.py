"""The main job by real processes, real sockets and lossy links: nothing lost, nothing twice, every byte counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp

from gateway.demo.lessons import write_lessons
from gateway.demo.trucks import DemoTruck
from protocol.documents import LinkConfig
from store.accounts import CAUSE_CRASH
from store.links import open_links
from tests.rig.fleet import Rig, carried, until

_TRUCK = "ke-arrow"
_CONFIG = """\
data = "data"
batch_age_s = 2
patience_s = 2

[classroom]
listen = "127.0.0.1:0"

[[link]]
name = "lte"
gateways = ["{lte}"]
price_per_mb = 0.01

[[link]]
name = "sat"
gateways = ["{sat}"]
price_per_mb = 5.0
bulk = false

[[collector]]
kind = "replay"
name = "trace"
file = "{folder}/trace.csv"
speed = 4.0
"""


def write_trace(truck_folder: Path, *, first: int, rows: int) -> None:
    """Write a trace whose one channel counts, so that each row can be told from every other."""
    lines = ["t,n", "1,1", *(f"{at},{first + at}" for at in range(rows))]
    (truck_folder / "trace.csv").write_text("\n".join(lines) + "\n")


async def rows_of(truck: DemoTruck, http: aiohttp.ClientSession) -> int:
    await truck.ask(http)
    assert truck.says is not None
    return truck.says.rows


async def publish(rig: Rig, edition: int) -> None:
    folder = rig.folder / f"lessons-{edition}"
    write_lessons(folder, edition=edition, bytes_min=60_000)
    pushed = await rig.people.publish(
        rig.client, folder, name="lessons", label=f"2026.{edition}", version=edition, title="Lessons"
    )
    await rig.people.roll_out(rig.client, bundle="lessons", manifest=pushed.digest, version=edition)


def has_active(rig: Rig, edition: int) -> bool:
    return any(fields["label"] == f"2026.{edition}" for fields in rig.told(_TRUCK, "bundle.activated"))


async def test_rows_config_and_content_arrive_once_though_both_sides_are_killed(tmp_path: Path) -> None:
    async with Rig(tmp_path, seed=1) as rig, aiohttp.ClientSession() as http:
        truck = await rig.truck(_TRUCK, _CONFIG)
        write_trace(truck.folder, first=0, rows=10_000)
        await rig.run(truck)

        async def recorded_some() -> bool:
            return await rows_of(truck, http) >= 10

        await until(recorded_some, within_s=180, what="ten rows are recorded")
        before_config = await rows_of(truck, http)
        links = [LinkConfig("lte", None), LinkConfig("sat", None)]
        await rig.people.configure(rig.client, version=1, batch_age_s=1, collectors={}, links=links)
        await publish(rig, 1)
        await until(lambda: has_active(rig, 1), within_s=180, what="edition 1 is active")

        # The daemon is killed with a batch open and parcels queued; what it had taken before is known.
        before_kill = await rows_of(truck, http)
        await truck.kill()
        write_trace(truck.folder, first=100_000, rows=80)
        await rig.run(truck)
        await asyncio.sleep(3)

        # The gateway is killed while the truck sends, and comes back on the same data.
        await rig.gateway.kill()
        await asyncio.sleep(2)
        await rig.gateway.start()
        await publish(rig, 2)
        await until(lambda: has_active(rig, 2), within_s=180, what="edition 2 is active")

        async def second_trace_is_there() -> bool:
            return sum(value >= 100_000 for value in await rig.values(_TRUCK, "n")) >= 80

        await until(second_trace_is_there, within_s=180, what="the whole second trace")
        counts = Counter(int(value) for value in await rig.values(_TRUCK, "n"))
        assert Counter({n: count for n, count in counts.items() if n >= 100_000}) == Counter(range(100_000, 100_080))
        # The first trace was begun anew when the configuration came: all of the first time, and all until the kill.
        twice = sum(count == 2 for count in counts.values())
        once = sum(n < 100_000 for n in counts)
        first = Counter({n: count for n, count in counts.items() if n < 100_000})
        assert first == Counter(range(twice)) + Counter(range(once))
        # Whichever of the two runs was the longer one: all rows of both are here.
        assert (once >= before_config, twice + once >= before_kill) == (True, True)

        coverage = await rig.client.coverage(_TRUCK)
        assert [epoch.missing for epoch in coverage.epochs] == [[] for _ in coverage.epochs]
        assert (coverage.rows, coverage.rejected) == (counts.total(), 0)
        told = Counter((each.document, each.version, each.outcome) for each in await rig.client.receipts(_TRUCK))
        assert told["config", 1, "applied"] == told["manifest", 1, "applied"] == told["manifest", 2, "applied"] == 1
        async with http.get(f"{truck.classroom}/content/lessons/index.html") as page:
            assert "Edition 2" in await page.text()


async def test_both_ledgers_agree_with_what_the_links_carried(tmp_path: Path) -> None:
    async with Rig(tmp_path, seed=2) as rig, aiohttp.ClientSession() as http:
        truck = await rig.truck(_TRUCK, _CONFIG)
        write_trace(truck.folder, first=0, rows=30)
        # Joining is not on the truck's own account: it happens once, by a person, before there is a budget.
        joined = {link: carried(relay) for link, relay in truck.relays.items()}
        await rig.run(truck)
        await publish(rig, 1)
        await until(lambda: has_active(rig, 1), within_s=180, what="the bundle is active")
        truck.relays["lte"].set_outage(True)
        # However slow this machine is, and whatever has gone up by now: this one can only go over the satellite.
        async with http.post(
            f"{truck.classroom}/v1/events", json={"name": "door", "precedence": "priority"}
        ) as response:
            assert response.status == 201

        async def all_there() -> bool:
            await truck.ask(http)
            rows = len(await rig.values(_TRUCK, "n"))
            # What the truck says may be some seconds old: that the event went is seen on the satellite.
            sat = carried(truck.relays["sat"]).at_truck > joined["sat"].at_truck
            return rows == 30 and sat and truck.says is not None and truck.says.queued == 0

        await until(all_there, within_s=180, what="all is at the gateway and nothing is queued")
        await asyncio.sleep(3)  # what is on the air arrives, and the gateway writes its sums down
        await truck.stop()
        spent = spent_of(truck)
        assert spent["sat"] > 0
        for link, relay in truck.relays.items():
            assert spent[link] == carried(relay).at_truck - joined[link].at_truck, link
        await rig.gateway.end()
        await rig.gateway.start()
        page = await rig.client.ledger()
        seen = Counter({way: sum(each.bytes for each in page.items if each.direction == way) for way in ("up", "down")})
        relays = [carried(relay) for relay in truck.relays.values()]
        assert seen["up"] == sum(each.reached_gateway for each in relays)
        assert seen["down"] == sum(each.left_gateway for each in relays)


async def test_a_small_budget_is_never_exceeded_on_the_link_even_when_the_daemon_is_killed(tmp_path: Path) -> None:
    cap = 6_000
    config = _CONFIG.replace("price_per_mb = 5.0", f"price_per_mb = 5.0\nmonth_bytes_max = {cap}").replace(
        "price_per_mb = 0.01", f"price_per_mb = 0.01\nmonth_bytes_max = {cap}"
    )
    config = config.replace("batch_age_s = 2", "batch_age_s = 1")
    async with Rig(tmp_path, seed=3) as rig, aiohttp.ClientSession() as http:
        truck = await rig.truck(_TRUCK, config)
        write_trace(truck.folder, first=0, rows=10_000)
        joined = {link: carried(relay).at_truck for link, relay in truck.relays.items()}

        def on(link: str) -> int:
            return carried(truck.relays[link]).at_truck - joined[link]

        async def must_wait() -> bool:
            await truck.ask(http)
            return truck.says is not None and truck.says.queued >= 8

        await rig.run(truck)
        await until(must_wait, within_s=180, what="parcels wait for want of money")
        # Reservations are for the worst case, an upload of several parcels sent twice: with so small a cap a good part
        # of it stays unused, the more the fuller the uploads are.
        assert on("lte") + on("sat") > cap * 3 // 4
        assert {link: on(link) for link in truck.relays if on(link) > cap} == {}
        await truck.kill()
        await rig.run(truck)
        await asyncio.sleep(4)
        assert {link: on(link) for link in truck.relays if on(link) > cap} == {}
        await truck.stop()
        assert all(spent <= cap for spent in spent_of(truck, crash=True).values())


def spent_of(truck: DemoTruck, *, crash: bool = False) -> dict[str, int]:
    """Return the IP bytes of each link by a stopped truck's own ledger; `crash` adds what a kill left in doubt."""
    links = open_links(truck.folder / "data" / "links.db", {}, now_s=0)
    try:
        spent: Counter[str] = Counter()
        for total in links.ledger.totals():
            if crash or total.cause != CAUSE_CRASH:
                spent[total.link] += total.bytes_ip
        return dict(spent)
    finally:
        links.close()
