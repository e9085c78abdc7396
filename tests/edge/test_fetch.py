"""Fetching one object: over loss and outages, resumable, and never in a hurry when nothing can be had."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from edge.config import LinkSettings
from edge.daemon import Edge
from edge.fetch import Fetch
from edge.link_errors import LinkDownError, RefusedError
from protocol.errors import BudgetExceededError
from protocol.numbers import PIECE_BYTES, Precedence
from store.errors import DigestMismatchError
from tests.edge.rig import Rig, Wire, until

DATA = random.Random(9).randbytes(300 * PIECE_BYTES + 17)
DIGEST = hashlib.sha256(DATA).digest()


async def ready(rig: Rig) -> tuple[Edge, Wire]:
    """Start a truck that is in contact, and a gateway that has the object."""
    wire = await rig.wire()
    edge = await rig.start(await rig.join(), LinkSettings(name="lte", gateways=(wire.address,)))
    (rig.hub.folder / "packs").mkdir(exist_ok=True)
    (rig.hub.folder / "packs" / f"{DIGEST.hex()}.pack").write_bytes(DATA)
    await until(lambda: edge.uplink.links["lte"].last_contact is not None)
    return edge, wire


async def fetch_of(edge: Edge, digest: bytes = DIGEST, size: int = len(DATA)) -> Fetch:
    return await edge._start_fetch(digest, size, Precedence.BULK, "content")


async def test_an_object_comes_whole(rig: Rig) -> None:
    edge, _ = await ready(rig)
    fetch = await fetch_of(edge)
    assert fetch.pieces == fetch.pieces_left == 301
    path = await fetch.run()
    assert path.read_bytes() == DATA
    assert fetch.pieces_left == 0
    await fetch.discard()
    assert not path.exists()


async def test_loss_costs_time_and_little_more(rig: Rig) -> None:
    edge, wire = await ready(rig)
    chance = random.Random(2)
    wire.drop = lambda data, is_up: chance.random() < 0.1
    before = wire.down_bytes
    path = await asyncio.wait_for((await fetch_of(edge)).run(), 60)
    assert path.read_bytes() == DATA
    assert wire.down_bytes - before < len(DATA) * 1.4


async def test_what_has_come_is_not_fetched_again(rig: Rig) -> None:
    edge, wire = await ready(rig)
    fetch = await fetch_of(edge)
    work = asyncio.create_task(fetch.run())
    await until(lambda: fetch.pieces_left < 150)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    again = await fetch_of(edge)
    left, before = again.pieces_left, wire.down_bytes
    assert left < 200
    assert (await again.run()).read_bytes() == DATA
    assert wire.down_bytes - before < (left + 70) * 1_130 * 1.4


async def test_an_outage_is_waited_for(rig: Rig) -> None:
    edge, wire = await ready(rig)
    fetch = await fetch_of(edge)
    work = asyncio.create_task(fetch.run())
    await until(lambda: fetch.pieces_left < 250)
    wire.cut = True
    await until(lambda: not edge.uplink.links["lte"].usable)
    carried = wire.up_datagrams
    await asyncio.sleep(0.3)
    wire.cut = False
    assert wire.up_datagrams - carried < 60
    assert (await asyncio.wait_for(work, 60)).read_bytes() == DATA


@pytest.mark.parametrize("failure", [LinkDownError("network is unreachable"), BudgetExceededError("no bytes left")])
async def test_a_link_that_refuses_at_once_is_left_alone(rig: Rig, failure: Exception) -> None:
    edge, _ = await ready(rig)
    asked = 0

    async def refuse(*args: Any, **kwargs: Any) -> Any:
        nonlocal asked
        asked += 1
        raise failure

    edge.uplink.links["lte"].bursts.doubt()
    edge.uplink.links["lte"].request = refuse  # type: ignore[method-assign]
    edge.uplink.backoff_max_s = 30.0
    work = asyncio.create_task((await fetch_of(edge)).run())
    await asyncio.sleep(0.7)
    assert asked <= 100  # a window each time that something else is heard; without a pause: thousands
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_an_object_that_is_not_there_is_refused(rig: Rig) -> None:
    edge, _ = await ready(rig)
    with pytest.raises(RefusedError, match="no such object"):
        await (await fetch_of(edge, b"n" * 32, 10_000)).run()


async def test_bytes_that_are_not_the_object_are_thrown_away(rig: Rig) -> None:
    edge, _ = await ready(rig)
    (rig.hub.folder / "packs" / f"{DIGEST.hex()}.pack").write_bytes(DATA[:-1] + b"\0")
    with pytest.raises(DigestMismatchError):
        await (await fetch_of(edge)).run()
    assert list((rig.tmp_path / "ke-arrow" / "staging").iterdir()) == []
    assert (await fetch_of(edge)).pieces_left == 301


async def test_a_piece_of_the_wrong_length_is_not_taken(rig: Rig) -> None:
    edge, _ = await ready(rig)
    fetch = await fetch_of(edge, size=len(DATA) + PIECE_BYTES)
    work = asyncio.create_task(fetch.run())
    # The last piece is shorter than asked for, and the one behind it is refused: whichever answer comes first.
    await until(lambda: work.done() or fetch.pieces_left <= 2)
    work.cancel()
    (outcome,) = await asyncio.gather(work, return_exceptions=True)
    assert isinstance(outcome, RefusedError | asyncio.CancelledError)
    assert fetch.pieces_left >= 2


async def test_a_disk_that_fails_stops_the_payment(rig: Rig) -> None:
    edge, wire = await ready(rig)
    fetch = await fetch_of(edge)

    def full(index: int, data: bytes) -> bool:
        raise OSError(28, "No space left on device")

    fetch.staging.put = full  # type: ignore[method-assign]
    before = wire.down_bytes
    with pytest.raises(OSError, match="No space left"):
        await fetch.run()
    assert wire.down_bytes - before < 100_000


async def test_staged_files_of_nobody_are_deleted_at_start(rig: Rig) -> None:
    data = await rig.join()
    (data / "staging").mkdir()
    orphan: Path = data / "staging" / ("ab" * 32 + ".part")
    orphan.write_bytes(b"x")
    await rig.start(data)
    assert not orphan.exists()
