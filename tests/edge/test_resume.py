"""A download that is cut off by everything at once goes on with what the disk has: at most 64 KiB come twice."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from typing import Any

import pytest

from edge.config import LinkSettings
from edge.daemon import Edge
from edge.fetch import Fetch
from protocol.numbers import PIECE_BYTES, Precedence
from store.staging import SYNC_BYTES
from tests.edge.rig import Rig, Wire, until

PIECES = 1_200
DATA = random.Random(3).randbytes(PIECES * PIECE_BYTES)
DIGEST = hashlib.sha256(DATA).digest()


async def started(rig: Rig, data: Any, names: tuple[str, ...]) -> tuple[Edge, dict[str, Wire]]:
    """Start a truck with these links, each by a wire of its own to where the gateway is now."""
    wires = {name: await rig.wire() for name in names}
    links = [LinkSettings(name=name, gateways=(wire.address,)) for name, wire in wires.items()]
    edge = await rig.start(data, *links)
    await until(lambda: any(link.last_contact is not None for link in edge.uplink.links.values()))
    return edge, wires


def received(fetch: Fetch) -> Counter[int]:
    """Count each piece that comes from here on, also one that is held already."""
    counts: Counter[int] = Counter()
    take = fetch._transfer.handle_piece

    def counting(link: str, ask: Any, data: bytes, now: float) -> int | None:
        counts[ask.request.first] += 1
        return take(link, ask, data, now)

    fetch._transfer.handle_piece = counting  # type: ignore[method-assign]
    return counts


async def begun(edge: Edge) -> tuple[Fetch, Counter[int], asyncio.Task[Any]]:
    fetch = await edge._start_fetch(DIGEST, len(DATA), Precedence.BULK, "content")
    return fetch, received(fetch), asyncio.create_task(fetch.run())


def fetched_again_bytes(lives: list[Counter[int]]) -> int:
    """Return what came in more than one life; within one, a busy machine may hold answers back for too long."""
    counts = sum((Counter(set(life)) for life in lives), Counter[int]())
    return sum(count - 1 for count in counts.values()) * PIECE_BYTES


@pytest.mark.parametrize("loss", [0.0, 0.1])
async def test_power_cuts_new_addresses_new_gateways_and_more_links_fetch_next_to_nothing_twice(
    rig: Rig, loss: float
) -> None:
    data = await rig.join()
    chance = random.Random(5)
    packs = rig.hub.folder / "packs"
    packs.mkdir(exist_ok=True)
    (packs / f"{DIGEST.hex()}.pack").write_bytes(DATA)
    lives: list[Counter[int]] = []
    for names, leave in ((("lte",), 800), (("sat", "lte"), 400), (("lte", "sat"), 0)):
        edge, wires = await started(rig, data, names)
        for wire in wires.values():
            wire.drop = lambda _data, _is_up: chance.random() < loss
            wire.delay_s = 0.3
        fetch, counts, work = await begun(edge)
        lives.append(counts)
        await until(lambda fetch=fetch, leave=leave: fetch.pieces_left <= leave)
        if leave:
            # The power goes; when it is back, the truck has other addresses, and another gateway took over.
            for wire in wires.values():
                wire.cut = True
            lives[-1] = counts.copy()
            await rig.crash(edge)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await rig.hub.stop()
            rig.hub.port = 0
            await rig.hub.start()
        else:
            path = await asyncio.wait_for(work, 60)
            assert path.read_bytes() == DATA
    assert fetched_again_bytes(lives) <= 2 * SYNC_BYTES  # two cuts
    assert set(sum(lives, Counter())) == set(range(PIECES))


async def test_two_links_fill_one_map_at_once_and_neither_asks_for_what_the_other_has(rig: Rig) -> None:
    data = await rig.join()
    edge, wires = await started(rig, data, ("lte", "sat"))
    (rig.hub.folder / "packs").mkdir(exist_ok=True)
    (rig.hub.folder / "packs" / f"{DIGEST.hex()}.pack").write_bytes(DATA)
    for wire in wires.values():
        wire.delay_s = 0.3
    before = {name: wire.down_bytes for name, wire in wires.items()}
    _, _, work = await begun(edge)
    await asyncio.wait_for(work, 60)
    carried = {name: wire.down_bytes - before[name] for name, wire in wires.items()}
    assert min(carried.values()) > 0.1 * len(DATA)


async def test_a_link_whose_device_is_gone_leaves_its_pieces_to_the_other_at_once(rig: Rig) -> None:
    data = await rig.join()
    edge, wires = await started(rig, data, ("lte", "sat"))
    (rig.hub.folder / "packs").mkdir(exist_ok=True)
    (rig.hub.folder / "packs" / f"{DIGEST.hex()}.pack").write_bytes(DATA)
    for wire in wires.values():
        wire.delay_s = 0.3
    fetch, _, work = await begun(edge)
    lte = edge.uplink.links["lte"]
    await until(lambda: fetch.pieces_left < 1_000 and len(fetch._transfer.flight("lte")) > 0)
    wires["lte"].cut = True
    lte.device_changed(None)
    edge.uplink.device_changed(lte, False)
    await until(lambda: not len(fetch._transfer.flight("lte")))
    assert lte.resting
    assert (await asyncio.wait_for(work, 60)).read_bytes() == DATA
