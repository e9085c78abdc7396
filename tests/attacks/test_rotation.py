"""Keys that were stolen and are taken away: what the thief did with them ends with the document that says so."""

from __future__ import annotations

import os

import pytest

from edge.clock import load_clock
from protocol.documents import DesiredEntry, ExchangeKey, OperatorRole, PublisherRole
from protocol.errors import PeerError
from protocol.messages import PiecesRequest
from protocol.numbers import (
    PATH_DOCUMENT,
    PATH_PIECES,
    ROOT_BYTES_MAX,
    VERSION_FREE_MAX,
    VERSION_STEP_MAX,
    DocumentKind,
)
from tests.attacks.rig import (
    DAY,
    GROUP,
    NEW_GATEWAY,
    NEW_ROOTS,
    NOW,
    OPERATOR,
    PUBLISHER,
    ROOTS,
    SECOND_OPERATOR,
    Gateway,
    Good,
    Truck,
    config,
    delegation,
    role,
    rollout,
    root,
    sign,
)

TEN_YEARS = 10 * 365 * DAY
PINNED = sign(root(), *ROOTS[:2])
OTHER_OPERATOR = delegation(2, operators=(OperatorRole(GROUP, role(1, SECOND_OPERATOR)),))
NO_PUBLISHER = delegation(2, publishers=(PublisherRole("games", role(1, PUBLISHER)),))


# ---- the gateway's keys ----


@pytest.mark.parametrize(
    "changes",
    [{"gateway": role(1, NEW_GATEWAY)}, {"exchange": (ExchangeKey(1, b"x" * 32),)}],
    ids=["freshness", "exchange"],
)
async def test_a_time_that_a_thief_told_ends_with_the_gateways_keys(
    truck: Truck, gateway: Gateway, served: Good, changes: dict[str, object]
) -> None:
    """The floor is ten years ahead, everything has expired; documents of the usual validity heal it."""
    truck.clock.floor_s = NOW + TEN_YEARS
    assert "expired" in str(await truck.sync())
    honest = Gateway(signer=NEW_GATEWAY if "gateway" in changes else "gateway")
    honest.version = gateway.version
    truck.link.gateway = truck.gateway = honest
    good = Good.make(2)
    honest.publish(good.files, good.manifest)
    honest.want(sign(root(2, **changes), *ROOTS[:2]), *good.all)
    assert await truck.sync() is None
    assert (truck.clock.at_least_s(), truck.config_version()) == (NOW - 10, 2)
    assert load_clock(truck.documents.settings).floor_s == NOW - 10


async def test_a_root_that_changes_no_gateway_key_moves_no_clock(truck: Truck, gateway: Gateway, served: Good) -> None:
    """Otherwise each renewal would set the time back."""
    truck.clock.floor_s = NOW + 100
    gateway.want(sign(root(2, issued_s=NOW - 5000), *ROOTS[:2]), *served.all)
    assert await truck.sync() is None
    assert truck.clock.at_least_s() == NOW + 100


async def test_sessions_made_under_a_stolen_edhoc_key_end_with_it(truck: Truck, gateway: Gateway, served: Good) -> None:
    second = sign(root(2, exchange=(ExchangeKey(1, b"x" * 32),)), *ROOTS[:2])
    gateway.want(second, *served.all)
    assert await truck.sync() is None
    assert truck.link.ended == 1
    gateway.want(second, sign(root(3, exchange=(ExchangeKey(1, b"x" * 32),)), *ROOTS[:2]), *served.all)
    assert await truck.sync() is None
    assert truck.link.ended == 1


async def test_a_gateway_alone_names_no_edhoc_key(truck: Truck, gateway: Gateway, served: Good) -> None:
    gateway.want(sign(root(2, exchange=(ExchangeKey(1, b"x" * 32),)), "gateway"), *served.all)
    await truck.sync()
    assert truck.trust.root.exchange == ()
    assert truck.link.ended == 0


# ---- operators and publishers ----


@pytest.mark.parametrize("table", [OTHER_OPERATOR, NO_PUBLISHER], ids=["operator", "publisher"])
async def test_a_download_that_a_revoked_key_began_is_not_gone_on_with(
    truck: Truck, gateway: Gateway, served: Good, table: object
) -> None:
    """What is active stays, what only the revoked key signed waits, and a key that counts has it go on."""
    bad = Good.make(2, files={"b.bin": os.urandom(6_000)})
    gateway.publish(bad.files, bad.manifest)
    gateway.want(*bad.all)
    assert await truck.sync() is None
    gateway.override[PATH_PIECES] = lambda payload, _: b"" if PiecesRequest.decode(payload).first == 3 else None
    await truck.work(lambda: gateway.asked(PATH_PIECES) > 5)
    second = sign(table, *ROOTS[:2])  # type: ignore[arg-type]
    gateway.want(second, bad.config, bad.rollout, bad.manifest)
    await truck.sync()
    gateway.override.clear()
    gateway.requests.clear()
    await truck.work(lambda: truck.active() == "v2", within_s=0.2)
    assert (truck.active(), truck.config_version(), gateway.asked(PATH_PIECES)) == ("v1", 2, 0)
    again = await truck.restarted()
    assert (await again.downlink.wanted()).config is not None
    await again.work(lambda: again.active() == "v2", within_s=0.2)
    assert again.active() == "v1"
    if table is OTHER_OPERATOR:
        signed_again = sign(rollout(bad.manifest, 3), SECOND_OPERATOR)
        gateway.want(second, bad.config, signed_again, bad.manifest)
        assert await again.sync() is None
        assert await again.work(lambda: again.active() == "v2")
    await again.close()
    truck.state, truck.writer = again.state, again.writer


async def test_a_role_table_ends_with_the_root_keys_that_signed_it(
    truck: Truck, gateway: Gateway, served: Good
) -> None:
    """At once, not only after a restart: until the new root keys have signed one, nobody may sign anything new."""
    second = sign(root(2, root=role(2, *NEW_ROOTS)), *ROOTS[:2], *NEW_ROOTS[:2])
    gateway.want(second, served.delegation, sign(config(2), OPERATOR))
    await truck.sync()
    assert (truck.trust.delegation, truck.config_version()) == (None, 1)
    gateway.want(second, sign(delegation(2), *NEW_ROOTS[:2]), sign(config(2), OPERATOR))
    assert await truck.sync() is None
    assert truck.config_version() == 2


async def test_a_stolen_operators_key_cannot_use_up_the_versions(truck: Truck, gateway: Gateway, served: Good) -> None:
    """Fast-forward by an operator: as high as is taken leaves room for those who come after."""
    for version, taken in (((1 << 53), False), (VERSION_FREE_MAX + VERSION_STEP_MAX, True)):
        gateway.want(served.delegation, sign(config(version, batch_age_s=666), OPERATOR))
        await truck.sync()
        assert (truck.config_version() == version) is taken
    again = await truck.restarted()
    table = sign(OTHER_OPERATOR, *ROOTS[:2])
    gateway.want(table, sign(config(VERSION_FREE_MAX + VERSION_STEP_MAX + 1, batch_age_s=7), SECOND_OPERATOR))
    assert await again.sync() is None
    assert again.config_version() == VERSION_FREE_MAX + VERSION_STEP_MAX + 1
    await again.close()
    truck.state, truck.writer = again.state, again.writer


# ---- sizes that an unverified desired state names ----


async def test_a_root_of_megabytes_is_not_followed(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.3.3: a thief with any key signs a desired state that names a root; its size is not taken at its word."""
    gateway.signer = "stranger"
    gateway.requests.clear()
    gateway.state(DesiredEntry(DocumentKind.ROOT, 2, bytes(32), 8 << 20))
    assert isinstance(await truck.sync(), PeerError)
    assert (gateway.asked(PATH_PIECES), gateway.asked(PATH_DOCUMENT)) == (0, 1)
    gateway.state(DesiredEntry(DocumentKind.ROOT, 2, bytes(32), ROOT_BYTES_MAX + 1))
    assert isinstance(await truck.sync(), PeerError)
    assert gateway.asked(PATH_PIECES) == 0


@pytest.mark.parametrize("kind", [DocumentKind.DELEGATION, DocumentKind.CONFIG, DocumentKind.ROLLOUT])
async def test_no_document_is_fetched_that_is_larger_than_its_kind_can_be(
    truck: Truck, gateway: Gateway, served: Good, kind: DocumentKind
) -> None:
    gateway.requests.clear()
    gateway.state(DesiredEntry(kind, 9, bytes(32), 8 << 20))
    await truck.sync()
    assert truck.rejected(kind)
    assert gateway.asked(PATH_PIECES) == 0


# ---- a gateway that was restored ----


async def test_a_gateway_that_lost_the_newest_root_and_role_table_is_told_them(
    truck: Truck, gateway: Gateway, served: Good
) -> None:
    second, third = sign(root(2), *ROOTS[:2]), sign(root(3), *ROOTS[:2])
    table = sign(delegation(2, revoked=("ke-thief",)), *ROOTS[:2])
    gateway.want(PINNED, second, third, table, served.config, served.rollout, served.manifest)
    assert await truck.sync() is None
    assert gateway.told == []
    gateway.want(PINNED, served.delegation, served.config, served.rollout, served.manifest)
    await truck.sync()
    assert gateway.told == [second, third, table]
    assert truck.trust.delegation is not None
    assert truck.trust.delegation.version == 2


async def test_a_truck_tells_only_what_it_believes_itself(truck: Truck, gateway: Gateway, served: Good) -> None:
    gateway.want(PINNED, sign(delegation(9), "gateway"), sign(root(2), "gateway"), *served.all)
    await truck.sync()
    gateway.want(PINNED)
    await truck.sync()
    assert gateway.told == [served.delegation]
