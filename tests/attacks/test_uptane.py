"""Uptane's partial bundle and slow retrieval, on a truck's real download, installer and downlink."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import pytest

from protocol import cose
from protocol.messages import PackOffer, PiecesRequest
from protocol.numbers import PATH_PACK, PATH_PIECES, PIECE_BYTES, DocumentKind
from tests.attacks.rig import BUNDLE, OPERATOR, Gateway, Good, ScriptedLink, Truck, config, sign

NOT_TEXT = os.urandom(6_000)


def whole(truck: Truck, label: str, files: dict[str, bytes]) -> bool:
    """Return whether the active bundle is this one, every byte of it."""
    installed = truck.installer.active(BUNDLE)
    assert installed is not None
    return installed.manifest.label == label and all(
        (installed.path / path).read_bytes() == data for path, data in files.items()
    )


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
async def test_partial_bundle_by_a_pack_that_ends_early(
    truck: Truck, gateway: Gateway, served: Good, kept: float
) -> None:
    good = Good.make(2, files={"a.txt": b"first file " * 50, "b.bin": NOT_TEXT, "c.txt": b"third file " * 50})
    gateway.publish(good.files, good.manifest)
    pack = gateway.packs[cose.digest(good.manifest)]
    gateway.packs[cose.digest(good.manifest)] = pack[: max(1, int(len(pack) * kept))]
    gateway.want(*good.all)
    assert await truck.sync() is None
    assert await truck.work(lambda: bool(truck.rejected(DocumentKind.MANIFEST)))
    assert whole(truck, "v1", served.files)
    assert not [each for each in truck.files() if "building" in each]


async def test_partial_bundle_by_withholding_some_pieces(truck: Truck, gateway: Gateway, served: Good) -> None:
    """All pieces but one arrive, again and again: the old bundle stays whole, also over a restart, until the last."""
    good = Good.make(2, files={"b.bin": NOT_TEXT})
    gateway.publish(good.files, good.manifest)
    gateway.want(*good.all)
    assert await truck.sync() is None
    gateway.override[PATH_PIECES] = lambda payload, _: b"" if PiecesRequest.decode(payload).first == 3 else None
    await truck.work(lambda: truck.active() != "v1", within_s=0.3)
    assert whole(truck, "v1", served.files)
    fetched = {PiecesRequest.decode(payload).first for path, payload, _ in gateway.requests if path == PATH_PIECES}
    assert fetched >= {0, 1, 2, 3}
    again = await truck.restarted()
    gateway.override.clear()
    gateway.requests.clear()
    wanted = await again.downlink.wanted()
    again.bundles.want(wanted.rollouts, wanted.manifests)
    assert await again.work(lambda: again.active() == "v2")
    assert whole(again, "v2", good.files)
    await again.close()
    truck.state, truck.writer = again.state, again.writer


async def test_partial_bundle_by_withholding_the_manifest(truck: Truck, gateway: Gateway, served: Good) -> None:
    good = Good.make(2)
    gateway.want(good.delegation, good.config, good.rollout)
    assert await truck.sync() is None
    await truck.work(lambda: truck.active() != "v1", within_s=0.1)
    assert whole(truck, "v1", served.files)


async def test_partial_bundle_by_claiming_that_more_is_held(truck: Truck, gateway: Gateway, served: Good) -> None:
    """A pack made for a truck that has everything, given to one that has not, makes no bundle."""
    good = Good.make(2, files={"index.html": served.files["index.html"], "b.bin": NOT_TEXT})
    gateway.publish(good.files, good.manifest)
    empty = gateway.pack(good.manifest, frozenset(cose.digest(data) for data in good.files.values())) or b"\x00"
    gateway.packs[cose.digest(good.manifest)] = empty
    gateway.want(*good.all)
    assert await truck.sync() is None
    assert await truck.work(lambda: bool(truck.rejected(DocumentKind.MANIFEST)))
    assert whole(truck, "v1", served.files)


async def test_slow_retrieval_of_a_document_ends_each_try_soon(truck: Truck, gateway: Gateway, served: Good) -> None:
    """A gateway that answers nothing holds a try for seconds and a few tries a link; other links are asked too."""
    other = ScriptedLink("lte", gateway, price=5.0)
    truck.uplink.links["lte"] = other
    truck.link.silent = True
    truck.link.timeouts_s.clear()
    gateway.want(*served.all, sign(config(2), OPERATOR))
    assert await truck.sync() is None
    assert truck.config_version() == 2
    assert max(truck.link.timeouts_s + other.timeouts_s) <= 20.0
    assert len(truck.link.timeouts_s) <= 3 * (1 + 1)


async def test_slow_retrieval_of_pieces_leaves_the_truck_working(
    truck: Truck, gateway: Gateway, served: Good, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces that never come: bounded tries a second, a bounded number in flight, and news still gets through."""
    monkeypatch.setattr("edge.fetch._IDLE_WAIT_S", 0.05)
    good = Good.make(2, files={"b.bin": os.urandom(64 * PIECE_BYTES)})
    gateway.publish(good.files, good.manifest)
    gateway.want(*good.all)
    assert await truck.sync() is None
    work = asyncio.create_task(truck.bundles.run())
    await _until(lambda: gateway.asked(PATH_PACK) > 0)
    truck.link.silent = True
    gateway.requests.clear()
    await asyncio.sleep(0.3)
    assert gateway.asked(PATH_PIECES) < 5_000
    truck.link.silent = False
    gateway.want(*good.all, sign(config(3), OPERATOR))
    assert await truck.sync() is None
    assert truck.config_version() == 3
    await _until(lambda: truck.active() == "v2")
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert whole(truck, "v2", good.files)


async def test_slow_retrieval_is_left_for_a_newer_rollout(truck: Truck, gateway: Gateway, served: Good) -> None:
    """A download that is fed a piece a year does not keep the truck from the version after it."""
    slow = Good.make(2, files={"b.bin": NOT_TEXT})
    gateway.publish(slow.files, slow.manifest)
    gateway.want(*slow.all)
    assert await truck.sync() is None
    gateway.override[PATH_PIECES] = lambda payload, _: b""
    work = asyncio.create_task(truck.bundles.run())
    await _until(lambda: gateway.asked(PATH_PIECES) > 0)
    gateway.override.clear()
    newer = Good.make(3)
    gateway.publish(newer.files, newer.manifest)
    gateway.override[PATH_PACK] = lambda payload, _: None
    gateway.want(*newer.all)
    assert await truck.sync() is None
    await _until(lambda: truck.active() == "v3")
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_slow_retrieval_of_an_offer_waits_at_most_an_hour_between_questions(
    truck: Truck, gateway: Gateway, served: Good, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`wait_s` is the gateway's wish: it neither makes the truck spin nor sleep for ever."""
    slept: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real_sleep(min(seconds, 0.002))

    monkeypatch.setattr("edge.bundles.asyncio.sleep", sleep)
    good = Good.make(2)
    gateway.want(*good.all)
    assert await truck.sync() is None
    waits = iter([0, 1 << 40, 5])
    gateway.override[PATH_PACK] = lambda payload, _: PackOffer(wait_s=next(waits, 5)).encode()
    work = asyncio.create_task(truck.bundles.run())
    try:
        until = time.monotonic() + 2
        while gateway.asked(PATH_PACK) < 4 and time.monotonic() < until:
            await real_sleep(0.005)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    asked_for = [each for each in slept if each >= 1]
    assert asked_for[:3] == [1, 3600, 5]
    assert truck.active() == "v1"


async def _until(holds: Callable[[], bool], within_s: float = 5.0) -> None:
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, "it did not happen in time"
        await asyncio.sleep(0.005)
