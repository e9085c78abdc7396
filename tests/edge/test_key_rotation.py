"""The gateway's keys change under trucks that are running, and under one that was away all the while."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.daemon import Edge
from edge.identity import load_identity
from edge.joining import join
from gateway.ownkeys import add_key, load_keys
from protocol.documents import ExchangeKey, RoleKeys, Root
from protocol.joincode import read_join_code
from protocol.numbers import DocumentKind
from tests.edge.rig import Rig, arrived, send, until


async def push_root(rig: Rig, version: int, *, freshness: tuple[bytes, ...], exchange: tuple[ExchangeKey, ...]) -> None:
    signers = rig.hub.signers
    document = Root(
        **signers.dates(DocumentKind.ROOT, version),
        root=RoleKeys(1, (signers.root.public,)),
        gateway=RoleKeys(1, freshness),
        exchange=exchange,
    )
    await rig.hub.accept(signers.sign(document, signers.root))


async def rotate(rig: Rig) -> ExchangeKey:
    """Make the gateway's second keys and have a root name only those."""
    folder = rig.hub.folder / "keys"
    add_key(folder, "freshness")
    number = add_key(folder, "exchange")
    keys = load_keys(folder)
    new = ExchangeKey(number, keys.exchange_keys[number].public)
    await push_root(rig, 2, freshness=(keys.later_freshness[1].public,), exchange=(new,))
    return new


async def follows(rig: Rig, edge: Edge, name: str) -> None:
    """Have the truck say something, and wait until it believes the second root."""

    async def has_followed() -> bool:
        if edge.trust.root.version == 2:
            return True
        await send(edge, name)
        return False

    await until(has_followed)


def session(edge: Edge) -> Any:
    return edge.links_store.contexts.get("lte")


async def test_a_running_truck_follows_and_makes_its_session_anew(rig: Rig) -> None:
    edge = await rig.start(await rig.join())
    await send(edge, "before")
    await arrived(rig, "before")
    first = session(edge)
    await rotate(rig)
    await follows(rig, edge, "nudge")
    await send(edge, "after")
    await arrived(rig, "after")
    await until(lambda: session(edge) is not None and session(edge).master_secret != first.master_secret)
    assert session(edge).recipient_id == b"\x01"  # the number of the key that it expects
    assert (await rig.hub.gateway.fleet.summary()).quarantined == 0  # type: ignore[union-attr]


async def test_a_truck_that_was_away_comes_back_under_the_key_that_it_knows(rig: Rig) -> None:
    """No session, only the key of its enrolment: the gateway answers with that one until the old file is taken away."""
    data = await rig.join()
    await rotate(rig)
    edge = await rig.start(data)
    await follows(rig, edge, "back")
    await send(edge, "under-the-new-key")
    await arrived(rig, "under-the-new-key")
    await rig.stop(edge)
    await rig.hub.stop()
    await rig.hub.start()
    edge = await rig.start(data)
    await send(edge, "still")
    await arrived(rig, "still")


async def test_a_truck_that_joins_after_the_rotation_is_given_the_new_key(rig: Rig, tmp_path: Path) -> None:
    new = await rotate(rig)
    parsed = read_join_code(await rig.hub.code())
    assert (parsed.key_number, parsed.gateway_key) == (new.number, new.key)
    data = tmp_path / "joiner"
    data.mkdir()
    await join(parsed, rig.config(), data)
    _, enrolment = load_identity(data / "identity")
    assert (enrolment.key_number, enrolment.gateway_key) == (1, new.key)
    edge = await rig.start(data)
    await send(edge, "joined")
    await arrived(rig, "joined")


async def test_a_truck_tries_every_key_that_its_root_names(rig: Rig) -> None:
    """One that only another gateway of the fleet holds does not keep it out."""
    edge = await rig.start(await rig.join())
    strange = ExchangeKey(7, load_keys(rig.hub.folder / "keys").exchange.public[::-1])
    real = ExchangeKey(0, load_keys(rig.hub.folder / "keys").exchange.public)
    await push_root(rig, 2, freshness=(rig.hub.signers.gateway.public,), exchange=(strange, real))
    await follows(rig, edge, "nudge")
    await send(edge, "in")
    await arrived(rig, "in")
