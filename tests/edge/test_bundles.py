"""Content against a real gateway: fetched once, whole or not at all, and told."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from edge.config import LinkSettings
from edge.daemon import Edge
from edge.tries import mend_nothing
from protocol.documents import Addressee, Rollout
from protocol.numbers import DocumentKind, Outcome, Precedence
from store.attempts import ATTEMPTS_MAX
from tests.edge.rig import Rig, Wire, until

# Noise does not shrink: what a pack of it costs on the wire is what it holds.
NOISE = random.Random(5).randbytes(200_000)
V1 = {"index.html": b"<p>one</p>", "film.mp4": NOISE}
V2 = {**V1, "index.html": b"<p>two</p>", "extra.bin": NOISE[::-1][:20_000]}


async def started(rig: Rig, **link: Any) -> tuple[Edge, Wire]:
    wire = await rig.wire()
    edge = await rig.start(await rig.join(), LinkSettings(name="lte", gateways=(wire.address,), **link))
    return edge, wire


async def roll_out(rig: Rig, edge: Edge, files: dict[str, bytes] | None, version: int = 1) -> bytes | None:
    manifest = None if files is None else await rig.hub.push(files, version=version)
    await rig.hub.accept(rig.hub.signers.rollout(manifest, version=version))
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    return manifest


def active(edge: Edge) -> dict[str, bytes] | None:
    folder = edge.installer.active_folder("maths")
    if folder is None:
        return None
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def told(rig: Rig, outcome: Outcome, *, kind: DocumentKind = DocumentKind.MANIFEST) -> list[Any]:
    async def receipts() -> list[Any]:
        return [each for each in await rig.hub.receipts() if (each.document, each.outcome) == (kind, outcome)]

    await until(receipts)
    return await receipts()


def content_bytes(edge: Edge) -> int:
    return sum(each.bytes_ip for each in edge.ledger.totals() if each.cause == "content")


def staged(rig: Rig) -> list[Path]:
    return list((rig.tmp_path / "ke-arrow" / "staging").iterdir())


async def test_a_rollout_ends_as_an_active_bundle_and_a_receipt(rig: Rig) -> None:
    edge, _ = await started(rig)
    manifest = await roll_out(rig, edge, V1)
    await until(lambda: active(edge) == V1)
    (receipt,) = await told(rig, Outcome.APPLIED)
    assert (receipt.digest, receipt.name, receipt.reason) == (manifest, "maths", "")
    await until(lambda: not staged(rig))
    assert edge.bundles.progress() is None


async def test_a_pack_that_five_daemons_died_of_is_reported_and_not_unpacked(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge, _ = await started(rig)
    start_fetch = edge.bundles._start_fetch

    async def died_of(digest: bytes, *arguments: Any) -> Any:
        use_up(edge, digest)
        return await start_fetch(digest, *arguments)

    monkeypatch.setattr(edge.bundles, "_start_fetch", died_of)
    monkeypatch.setattr("edge.installer.unpack", None)
    await roll_out(rig, edge, V1)
    (receipt,) = await told(rig, Outcome.REJECTED)
    assert receipt.reason == "put aside: it was begun 5 times and never came to an end"
    assert active(edge) is None


async def test_a_document_that_five_daemons_died_of_is_reported_and_not_believed(rig: Rig) -> None:
    edge, _ = await started(rig)
    manifest = await rig.hub.push(V1)
    use_up(edge, manifest)
    await rig.hub.accept(rig.hub.signers.rollout(manifest))
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    (receipt,) = await told(rig, Outcome.REJECTED)
    assert (receipt.digest, receipt.reason[:9]) == (manifest, "put aside")
    assert rig.failed(edge) is None


def use_up(edge: Edge, digest: bytes) -> None:
    """Leave what five daemons leave that died of something."""
    for _ in range(ATTEMPTS_MAX - edge.attempts.count(digest)):
        edge.attempts._begin(digest, 60)


async def test_an_update_costs_what_is_new(rig: Rig) -> None:
    edge, wire = await started(rig)
    await roll_out(rig, edge, V1)
    await until(lambda: active(edge) == V1)
    # On the wire: the ledger books what an answer that is still under way costs a little later.
    before = wire.total_bytes
    await roll_out(rig, edge, V2, 2)
    await until(lambda: active(edge) == V2)
    assert wire.total_bytes - before < 3 * 20_000, "the whole has more than 200,000"
    assert len(edge.installer.installed()) == 2


async def test_going_back_to_what_is_still_held_costs_no_content(rig: Rig) -> None:
    edge, wire = await started(rig)
    first = await roll_out(rig, edge, V1)
    await until(lambda: active(edge) == V1)
    await roll_out(rig, edge, V2, 2)
    await until(lambda: active(edge) == V2)
    before = wire.total_bytes
    await rig.hub.accept(rig.hub.signers.rollout(first, version=3))
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    await until(lambda: active(edge) == V1)
    await until_told(rig, 3)
    assert wire.total_bytes - before < 10_000, "documents and receipts alone; the content has more than 200,000"


async def until_told(rig: Rig, count: int) -> None:
    async def enough() -> bool:
        return len([each for each in await rig.hub.receipts() if each.document is DocumentKind.MANIFEST]) == count

    await until(enough)


async def test_a_bundle_that_is_taken_away_is_gone_and_told_once(rig: Rig) -> None:
    edge, _ = await started(rig)
    await roll_out(rig, edge, V1)
    await until(lambda: active(edge) == V1)
    await roll_out(rig, edge, None, 2)
    await until(lambda: active(edge) is None)
    await told(rig, Outcome.APPLIED, kind=DocumentKind.ROLLOUT)
    assert not (edge.installer.root / "maths").exists()
    await rig.stop(edge)
    edge = await rig.start(rig.tmp_path / "ke-arrow")
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    await asyncio.sleep(0.3)
    assert len(await told(rig, Outcome.APPLIED, kind=DocumentKind.ROLLOUT)) == 1


async def test_a_power_cut_in_the_middle_pays_for_little_twice(rig: Rig) -> None:
    edge, wire = await started(rig)
    await roll_out(rig, edge, V1)
    await until(lambda: (progress := edge.bundles.progress()) and 0 < progress.pieces_left < progress.pieces / 2)
    await rig.crash(edge)
    assert active(edge) is None
    edge = await rig.start(rig.tmp_path / "ke-arrow", LinkSettings(name="lte", gateways=(wire.address,)))
    await until(lambda: active(edge) == V1)
    pieces = -(-len(NOISE) // 1_024)
    assert wire.down_bytes < (pieces + 2 * 64 + 40) * 1_130  # 64 KiB again, and what was in flight


async def test_a_rollout_that_is_superseded_in_the_middle_gives_way(rig: Rig) -> None:
    edge, wire = await started(rig)
    await roll_out(rig, edge, {"index.html": b"slow", "film.mp4": NOISE})
    await until(lambda: (progress := edge.bundles.progress()) and 0 < progress.pieces_left < progress.pieces - 5)
    wire.drop = lambda data, is_up: not is_up and len(data) > 900  # pieces stop, all else passes
    # An unrelated change first: it must not make the second one go unnoticed.
    await rig.hub.accept(rig.hub.signers.config(1, batch_age_s=77))
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    await until(lambda: edge.recorder.batch_age_s == 77)
    await roll_out(rig, edge, {"index.html": b"quick"}, 2)
    await until(lambda: active(edge) == {"index.html": b"quick"})
    assert len(await told(rig, Outcome.APPLIED)) == 1


async def test_rot_in_what_is_held_costs_the_file_that_rotted_and_not_the_bundle(rig: Rig) -> None:
    edge, _ = await started(rig)
    notes = {"notes.txt": b"A line of notes.\n" * 400}
    await roll_out(rig, edge, V1 | notes)
    await until(lambda: active(edge) == V1 | notes)
    folder = edge.installer.active_folder("maths")
    assert folder is not None
    before = content_bytes(edge)
    (folder / "notes.txt").write_bytes(b"rot" * 2_000)
    await roll_out(rig, edge, V2 | notes, 2)
    await until(lambda: active(edge) == V2 | notes)
    assert content_bytes(edge) - before < len(NOISE) // 2


async def test_what_is_held_and_cannot_be_mended_is_made_good_by_a_pack_from_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge, _ = await started(rig)
    await roll_out(rig, edge, V1)
    await until(lambda: active(edge) == V1)
    folder = edge.installer.active_folder("maths")
    assert folder is not None
    (folder / "film.mp4").write_bytes(b"rot" + NOISE[3:])
    monkeypatch.setattr(edge.bundles, "_mend", mend_nothing)
    await roll_out(rig, edge, V2, 2)
    await until(lambda: active(edge) == V2)


async def test_a_bundle_beyond_the_share_is_refused_before_it_is_paid_for(rig: Rig) -> None:
    wire = await rig.wire()
    link = LinkSettings(name="lte", gateways=(wire.address,))
    edge = await rig.start(await rig.join(), link, content_mb_max=1)
    await roll_out(rig, edge, {"film.mp4": NOISE * 6})
    (receipt,) = await told(rig, Outcome.REJECTED)
    assert "maths needs 1200000 bytes more" in receipt.reason
    assert content_bytes(edge) == 0
    assert rig.failed(edge) is None


async def test_the_disk_that_fails_is_told_once_and_tried_again_later(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge, _ = await started(rig)
    installs = 0

    def full(*args: Any, **kwargs: Any) -> Any:
        nonlocal installs
        installs += 1
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(edge.installer, "install", full)
        broken.setattr("edge.bundles._LOCAL_TROUBLE_S", 0.2)
        await roll_out(rig, edge, V1)
        await until(lambda: installs >= 3)
    spent = content_bytes(edge)
    await until(lambda: active(edge) == V1)
    # The pack was still here: late answers at most, not its 200 kB again.
    assert content_bytes(edge) - spent < 60_000
    assert len(await told(rig, Outcome.REJECTED)) == 1
    assert rig.failed(edge) is None


async def test_a_pack_that_lies_is_rejected_with_a_receipt_and_blocks_nothing(rig: Rig) -> None:
    edge, _ = await started(rig)
    packs = rig.hub.gateway._packs  # type: ignore[union-attr]
    real = packs.read_pieces

    def lie(digest: bytes, wanted: list[int]) -> list[bytes] | None:
        pieces = real(digest, wanted)
        return pieces and [bytes(len(data)) if not first else data for first, data in zip(wanted, pieces, strict=True)]

    packs.read_pieces = lie
    await roll_out(rig, edge, V1)
    (receipt,) = await told(rig, Outcome.REJECTED)
    assert "digest" in receipt.reason
    assert active(edge) is None
    packs.read_pieces = real
    await asyncio.sleep(0.3)
    assert active(edge) is None  # no third payment for the same wish
    await rig.hub.accept(rig.hub.signers.rollout(receipt.digest, version=2))
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    await until(lambda: active(edge) == V1)


async def test_content_that_waits_goes_on_when_the_gateway_is_heard(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    edge, _ = await started(rig)
    handlers = rig.hub.gateway.context.serversite._handlers  # type: ignore[union-attr]
    key = next(key for key in handlers if key[1] == "k")
    real, rest = handlers[key], edge.bundles._rest

    async def fail(request: Any) -> Any:
        raise RuntimeError("the worker was killed")

    async def long_rest(seconds: float) -> None:
        await rest(600.0)

    handlers[key] = fail
    monkeypatch.setattr(edge.bundles, "_rest", long_rest)
    await roll_out(rig, edge, V1)
    await until(lambda: (progress := edge.bundles.progress()) and progress.waiting)
    handlers[key] = real
    await asyncio.sleep(0.4)  # longer than the shortest rest
    await edge.recorder.event("again", Precedence.PRIORITY)
    await until(lambda: active(edge) == V1)


async def test_a_gateway_in_trouble_is_asked_again(rig: Rig) -> None:
    edge, _ = await started(rig)
    handlers = rig.hub.gateway.context.serversite._handlers  # type: ignore[union-attr]
    key = next(key for key in handlers if key[1] == "k")
    real, failures = handlers[key], 2

    async def fail(request: Any) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise RuntimeError("the worker was killed")
        return await real(request)

    handlers[key] = fail
    await roll_out(rig, edge, V1)
    await until(lambda: active(edge) == V1)
    assert not [each for each in await rig.hub.receipts() if each.outcome is Outcome.REJECTED]


async def test_a_pack_that_is_being_made_is_asked_for_later(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.packs._ANSWER_S", 0.0)
    monkeypatch.setattr("gateway.packs._ASK_AGAIN_S", 1)
    edge, _ = await started(rig)
    await roll_out(rig, edge, V1)
    await until(lambda: (progress := edge.bundles.progress()) and "making the pack" in progress.waiting)
    await until(lambda: active(edge) == V1)


async def test_two_rollouts_of_one_bundle_do_not_undo_each_other(rig: Rig) -> None:
    edge, _ = await started(rig)
    signers = rig.hub.signers
    one, two = await rig.hub.push(V1), await rig.hub.push(V2, version=2)
    dates = {**signers.dates(DocumentKind.ROLLOUT, 1), "issued_s": rig.hub.now_ms // 1000 + 10}
    late = signers.sign(
        Rollout(**dates, addressee=Addressee(group="kenya"), bundle="maths", manifest=two), signers.operator
    )
    documents = [signers.delegation(), signers.rollout(one), late]
    fleet = rig.hub.gateway.fleet  # type: ignore[union-attr]
    for digest in (one, two):
        record = await fleet.document(digest)
        assert record is not None
        documents.append(record.signed)
    await rig.hub.desire(*[await rig.hub.entry(each) for each in documents], version=2**40)
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    await until(lambda: active(edge) == V2)
    await asyncio.sleep(0.3)
    assert active(edge) == V2
    assert len(await told(rig, Outcome.APPLIED)) == 1


async def test_content_waits_where_a_link_may_not_carry_it(rig: Rig) -> None:
    edge, _ = await started(rig, bulk=False)
    await roll_out(rig, edge, V1)
    await until(lambda: (progress := edge.bundles.progress()) and "no link" in progress.waiting)
    assert content_bytes(edge) == 0
    await edge.situation.refresh()
    assert "cheaper link" in edge.situation.status().links[0].note


async def test_a_budget_that_runs_out_in_the_middle_keeps_what_came(rig: Rig) -> None:
    edge, wire = await started(rig, month_bytes_max=120_000)
    await roll_out(rig, edge, V1)
    await until(lambda: (progress := edge.bundles.progress()) and progress.pieces_left < progress.pieces)
    await until(lambda: edge.uplink.is_spent(edge.uplink.links["lte"], Precedence.BULK) or _rests(edge), within_s=60)
    assert wire.total_bytes <= 120_000
    await rig.stop(edge)
    edge = await rig.start(rig.tmp_path / "ke-arrow", LinkSettings(name="lte", gateways=(wire.address,)))
    await until(lambda: active(edge) == V1)
    assert wire.total_bytes < 120_000 + 200_000


def _rests(edge: Edge) -> bool:
    fetch = edge.bundles._fetch
    return fetch is not None and fetch._resting.get("lte", 0.0) > edge.clock.monotonic()
