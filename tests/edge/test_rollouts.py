"""A rollout in stages against real daemons: a bad edition ends with its first stage, and taking it back is free."""

from __future__ import annotations

import asyncio

from edge.daemon import Edge
from protocol.documents import Addressee, Manifest, ManifestFile
from protocol.numbers import BUNDLE_BYTES_MAX, DocumentKind, Outcome, Precedence
from store.fleet.rollouts import RolloutState
from tests.edge.rig import Rig, until
from tests.edge.test_bundles import active, content_bytes

NAMES = ("ke-arrow", "ke-bow", "ke-crane", "ke-dove")
KENYA = Addressee(group="kenya")
LESSONS = {"index.html": b"<p>one</p>", "more.html": b"<p>" + bytes(range(256)) * 40}


async def nudge(edges: dict[str, Edge]) -> None:
    """Have every truck say something: its acknowledgement tells what is desired."""
    await asyncio.gather(*(each.recorder.event("nudge", Precedence.PRIORITY) for each in edges.values()))


async def outcomes(rig: Rig, manifest: bytes) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    for name in NAMES:
        for each in await rig.hub.receipts(name):
            if each.document is DocumentKind.MANIFEST and each.digest == manifest:
                found[name] = each.outcome
    return found


async def test_a_bad_edition_halts_at_its_first_truck_and_is_taken_back_for_nothing(rig: Rig) -> None:
    fleet = rig.hub.gateway.fleet  # type: ignore[union-attr]
    signers = rig.hub.signers
    edges = {name: await rig.start(await rig.join(name)) for name in NAMES}
    good = await rig.hub.push(LESSONS)
    await rig.hub.accept(signers.rollout(good, version=1, to=KENYA))
    await nudge(edges)
    await until(lambda: all(active(edge) == LESSONS for edge in edges.values()))

    async def all_told() -> bool:
        return len(await outcomes(rig, good)) == len(NAMES)

    await until(all_told)
    # A film that no truck has room for.
    files = (ManifestFile("film.mp4", BUNDLE_BYTES_MAX, bytes(32)),)
    dates = signers.dates(DocumentKind.MANIFEST, 2)
    too_large = Manifest(**dates, name="maths", label="v2", content="static", files=files)
    bad = await rig.hub.accept(signers.sign(too_large, signers.publisher))
    rollout = await rig.hub.accept(signers.rollout(bad, version=2, to=KENYA, stages=(25, 50), stop_at_percent=20))
    await nudge(edges)

    async def halted() -> bool:
        state = await fleet.rollout(rollout)
        return state is not None and state.state is RolloutState.HALTED

    await until(halted)
    assert list((await outcomes(rig, bad)).values()) == [Outcome.REJECTED]
    assert [each.rule for each in await fleet.alarms()] == ["rollout.halted"]
    await nudge(edges)
    before = {name: content_bytes(edge) for name, edge in edges.items()}

    back = await rig.hub.accept(signers.rollout(good, version=3, to=KENYA))
    await nudge(edges)

    async def all_know() -> bool:
        for name in NAMES:
            record = await fleet.truck(name)
            if record is None or record.desired_reported != record.desired_digest:
                return False
        return True

    await until(all_know)
    state = await fleet.rollout(back)
    assert state is not None
    assert state.stage == 1
    assert all(active(edge) == LESSONS for edge in edges.values())
    assert {name: content_bytes(edge) for name, edge in edges.items()} == before
    assert len(await outcomes(rig, bad)) == 1, "the others never heard of it"
