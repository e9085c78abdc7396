"""What is quoted is what it costs: a real gateway and a real truck over lossy links, the bytes read off the link."""

from __future__ import annotations

import random
from pathlib import Path

import aiohttp
import pytest

from gateway.contentanswers import TruckQuote
from gateway.demo.trucks import DemoTruck
from protocol.documents import LinkConfig
from tests.rig.fleet import Rig, carried, lossy, until

_TRUCK = "ke-arrow"
_PRICE_MILLI = 5_000
# Nothing but the rollout: what telemetry costs besides is on another line of the ledger.
_CONFIG = """\
data = "data"
patience_s = 2

[classroom]
listen = "127.0.0.1:0"

[[link]]
name = "lte"
gateways = ["{lte}"]
"""


def write_edition(folder: Path, edition: int) -> None:
    """Write a bundle of a film that no packer makes smaller and a text of which a part is new."""
    folder.mkdir()
    (folder / "film.bin").write_bytes(random.Random(7).randbytes(400_000))
    text = [f"lesson {line} of edition {edition if line % 10 == 0 else 0}: {'x' * 40}" for line in range(2_000)]
    (folder / "lessons.txt").write_text("\n".join(text))
    (folder / f"new-{edition}.bin").write_bytes(random.Random(edition).randbytes(250_000))


async def quoted(rig: Rig, edition: int) -> TruckQuote:
    found: list[TruckQuote] = []

    async def is_made() -> bool:
        found[:] = (await rig.client.quote("lessons", f"2026.{edition}", trucks=[_TRUCK])).items
        return not found[0].making

    await until(is_made, within_s=120, what="the pack is made")
    return found[0]


async def cost_of_rollout(rig: Rig, truck: DemoTruck, http: aiohttp.ClientSession, manifest: str, edition: int) -> int:
    """Roll an edition out; return what the truck's link carried for it, and the event that let it hear of it."""
    before = carried(truck.relays["lte"]).at_truck
    await rig.people.roll_out(rig.client, bundle="lessons", manifest=manifest, version=edition)
    async with http.post(f"{truck.classroom}/v1/events", json={"name": "door", "precedence": "priority"}) as answer:
        assert answer.status == 201
    label = f"2026.{edition}"

    async def is_reported() -> bool:
        await truck.ask(http)
        active = any(fields["label"] == label for fields in rig.told(_TRUCK, "bundle.activated"))
        if not active or truck.says is None or truck.says.queued:
            return False
        return bool((await rig.client.trucks())[0].up_to_date)

    await until(is_reported, within_s=180, what=f"edition {edition} is active and reported")
    return carried(truck.relays["lte"]).at_truck - before


async def test_a_rollout_costs_what_was_quoted_within_a_tenth(tmp_path: Path) -> None:
    async with Rig(tmp_path, seed=11) as rig, aiohttp.ClientSession() as http:
        truck = await rig.truck(_TRUCK, _CONFIG, {"lte": lossy("lte", loss=0.02)})
        await rig.run(truck)
        links = [LinkConfig("lte", None, 0, _PRICE_MILLI)]
        await rig.people.configure(rig.client, version=1, batch_age_s=60, collectors={}, links=links)
        for edition in (1, 2):
            write_edition(tmp_path / f"lessons-{edition}", edition)
            pushed = await rig.people.publish(
                rig.client,
                tmp_path / f"lessons-{edition}",
                name="lessons",
                label=f"2026.{edition}",
                version=edition,
                title="Lessons",
            )
            quote = await quoted(rig, edition)
            (link,) = quote.links
            cost = await cost_of_rollout(rig, truck, http, pushed.digest, edition)
            assert quote.pack_bytes is not None
            assert quote.pack_bytes < quote.file_bytes
            page = await rig.client.ledger(by=("cause", "direction"))
            for each in page.items:
                print(each.cause, each.direction, each.bytes, each.datagrams)
            assert link.wire_bytes == pytest.approx(cost, rel=0.1)
            assert link.money_milli == -(-link.wire_bytes * _PRICE_MILLI // 1_000_000)
