"""The attacks of the TUF specification 1.5.2, each by a gateway that has all of its own keys, on a truck's real code.

Numbers in the docstrings are checks of the client workflow (5.3 root, 5.4 timestamp and 5.5 snapshot: our desired
state, 5.6 targets: delegation, configuration, rollout and manifest, 5.7 the file itself).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from protocol import cose
from protocol.documents import (
    Addressee,
    DesiredEntry,
    Document,
    OperatorRole,
    PublisherRole,
    document_aad,
)
from protocol.errors import ExpiredError, RollbackError
from protocol.messages import PackOffer, PiecesRequest
from protocol.numbers import DOCUMENT_INLINE_BYTES_MAX, PATH_DOCUMENT, PATH_PACK, PATH_PIECES, DocumentKind
from tests.attacks.rig import (
    BUNDLE,
    FAR_OPERATOR,
    FAR_PUBLISHER,
    GATEWAY,
    GROUP,
    LATER,
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
    key,
    manifest,
    role,
    rollout,
    root,
    sign,
)

EVIL = {"index.html": b"<script>not a lesson</script>"}
EVIL_MANIFEST = sign(manifest(EVIL, 2), GATEWAY)
OWN_ROLES = delegation(
    2, publishers=(PublisherRole("", role(1, GATEWAY)),), operators=(OperatorRole("*", role(1, GATEWAY)),)
)
FORGERIES: dict[str, Document] = {
    "root": root(2, root=role(1, GATEWAY)),
    "delegation": OWN_ROLES,
    "config": config(2),
    "rollout": rollout(EVIL_MANIFEST, 3),
    "manifest": manifest(EVIL, 2),
}


async def unmoved(truck: Truck, good: Good) -> None:
    """Check that the truck has what it had, in memory, on the disk, and after a restart."""
    assert truck.config_version() == 1
    assert truck.active() == "v1"
    assert (truck.installer.active_folder(BUNDLE) / "index.html").read_bytes() == good.files["index.html"]  # type: ignore[operator]
    again = await truck.restarted()
    try:
        assert again.trust.root.version == 1
        assert again.trust.delegation is not None
        assert again.trust.delegation.version == 1
        wanted = await again.downlink.wanted()
        assert wanted.config is not None
        assert wanted.config[1].version == 1
        assert {each.version for each in wanted.rollouts} <= {1}  # none while none is named
    finally:
        await again.close()
        truck.state, truck.writer = again.state, again.writer


# ---- arbitrary installation ----


@pytest.mark.parametrize("borrowed", [False, True])
async def test_arbitrary_installation_with_the_gateways_key(
    truck: Truck, gateway: Gateway, served: Good, borrowed: bool
) -> None:
    """5.3.4, 5.6.2: the gateway's key signs only desired states, whosever key id it puts beside the signature."""
    victims = {DocumentKind.MANIFEST: PUBLISHER, DocumentKind.ROOT: ROOTS[0], DocumentKind.DELEGATION: ROOTS[0]}
    forged = []
    for document in FORGERIES.values():
        message = cose._sign_structure(document.encode(), document_aad(document.kind))
        named = victims.get(document.kind, OPERATOR) if borrowed else GATEWAY
        signature = cose.Countersigned(key(named).key_id, key(GATEWAY).sign(message))
        forged.append(cose.assemble(document.encode(), [signature]))
    gateway.want(*served.all, *forged)
    await truck.sync()
    assert truck.refused(*forged)
    await unmoved(truck, served)


async def test_arbitrary_installation_by_another_pack(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.7.1: a pack may bring any bytes; only those that the manifest names become files."""
    good = Good.make(2)
    gateway.publish({"index.html": b"other bytes entirely", "a/b.txt": good.files["a/b.txt"]}, served.manifest)
    gateway.blobs |= {cose.digest(data): b"X" * len(data) for data in good.files.values()}
    gateway.packs[cose.digest(good.manifest)] = gateway.pack(good.manifest, frozenset())
    gateway.want(*good.all)
    assert await truck.sync() is None
    await truck.install()
    assert truck.active() == "v1"
    assert "contents that were signed" in truck.rejected(DocumentKind.MANIFEST)[0]
    assert not [each for each in truck.files() if "building" in each]


# ---- endless data ----


@pytest.mark.parametrize("extra", [1, 60_000])
async def test_endless_data_in_a_small_document(truck: Truck, gateway: Gateway, served: Good, extra: int) -> None:
    """5.6.1: what comes must be as long as what was named, whatever else it is."""
    good = Good.make(2)
    gateway.want(*good.all)
    gateway.override[PATH_DOCUMENT] = lambda _, query: (
        None if query == ("desired",) else good.config + os.urandom(extra)
    )
    await truck.sync()
    assert truck.rejected(DocumentKind.CONFIG)
    await unmoved(truck, served)


async def test_endless_data_as_a_desired_state(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.4.1: a desired state that never ends is refused and kept nowhere."""
    gateway.desired = os.urandom(65_000)
    assert await truck.sync() is not None
    await unmoved(truck, served)


async def test_endless_data_in_pieces(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.6.1: a piece longer than it can be is not kept, and the download stays as large as it was named."""
    good = Good.make(2, files={"index.html": os.urandom(5_000)})
    gateway.publish(good.files, good.manifest)
    gateway.want(*good.all)
    assert await truck.sync() is None
    gateway.override[PATH_PIECES] = lambda payload, query: bytes(9_000)
    await truck.work(lambda: gateway.asked(PATH_PIECES) > 20, within_s=0.5)
    staged = sum(each.stat().st_size for each in (truck.folder / "staging").glob("*"))
    assert staged <= 8_000
    assert truck.active() == "v1"


async def test_endless_data_as_a_pack(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.7.1: an offered pack is at most a little longer than the signed sizes that it decodes to."""
    good = Good.make(2)
    gateway.want(*good.all)
    assert await truck.sync() is None
    gateway.override[PATH_PACK] = lambda payload, query: PackOffer(digest=bytes(32), size=1 << 40).encode()
    await truck.install()
    assert truck.active() == "v1"
    assert gateway.asked(PATH_PIECES) == 0
    assert "offers a pack" in truck.rejected(DocumentKind.MANIFEST)[0]


# ---- extraneous dependencies ----


async def test_extraneous_manifest_that_no_rollout_names(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.6.7: a publisher's true manifest is not fetched unless an operator's rollout names it."""
    extra = sign(manifest({"x.html": b"extra"}, name="maths-extra"), PUBLISHER)
    gateway.want(*served.all, extra)
    await truck.sync()
    assert truck.rejected(DocumentKind.MANIFEST)
    assert gateway.asked(PATH_DOCUMENT) == 1
    await unmoved(truck, served)


async def test_extraneous_bytes_in_a_pack(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.7: what a pack has beyond the signed files becomes no file."""
    good = Good.make(2)
    gateway.publish(good.files, good.manifest)
    gateway.packs[cose.digest(good.manifest)] += b"\x00" * 500
    gateway.want(*good.all)
    assert await truck.sync() is None
    await truck.install()
    installed = truck.installer.active(BUNDLE)
    assert installed is not None
    on_disk = {str(each.relative_to(installed.path)) for each in installed.path.rglob("*") if each.is_file()}
    assert on_disk == {file.path for file in installed.manifest.files}


# ---- fast-forward ----


async def test_fast_forward_of_the_desired_state_ends_with_new_gateway_keys(
    truck: Truck, gateway: Gateway, served: Good
) -> None:
    """5.3.11: a stolen gateway key raises the version as high as it goes; a root with new keys makes that void."""
    gateway.state(version=1 << 53)
    assert await truck.sync() is None
    honest = Gateway(signer=NEW_GATEWAY)
    next_root = sign(root(2, gateway=role(1, NEW_GATEWAY)), *ROOTS[1:])
    good = Good.make(2)
    honest.publish(good.files, good.manifest)
    honest.want(next_root, *good.all)
    truck.link.gateway = honest
    assert await truck.sync() is None
    assert (truck.trust.root.version, truck.config_version()) == (2, 2)
    assert await truck.work(lambda: truck.active() == "v2")
    truck.gateway = honest
    again = await truck.restarted()
    honest.want(next_root, *good.all, sign(config(3), OPERATOR))
    assert await again.sync() is None
    assert again.config_version() == 3
    await again.close()
    truck.state, truck.writer = again.state, again.writer


async def test_fast_forward_does_not_reach_what_people_sign(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.6.3: versions of other documents rise only after their signatures verified."""
    before = truck.versions()
    gateway.want(
        sign(config((1 << 53) - 1, batch_age_s=60), GATEWAY), sign(rollout(EVIL_MANIFEST, (1 << 53) - 1), GATEWAY)
    )
    await truck.sync()
    good = Good.make(2)
    gateway.publish(good.files, good.manifest)
    gateway.want(*good.all)
    assert await truck.sync() is None
    assert truck.config_version() == 2
    assert {name: v for name, v in truck.versions().items() if v > 1000} == {}
    assert before[(DocumentKind.CONFIG, "ke-arrow")] == 1


# ---- indefinite freeze ----


async def test_freeze_ends_at_the_expiry_of_the_desired_state(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.4.4: a replayed desired state is believed until it expires; then the last good stays and an error says so."""
    assert await truck.sync() is None
    truck.clock.floor_s = NOW + 2 * 86_400
    assert isinstance(await truck.sync(), ExpiredError)
    await unmoved(truck, served)


@pytest.mark.parametrize("which", ["delegation", "config", "rollout", "manifest"])
async def test_freeze_at_an_expired_document(truck: Truck, gateway: Gateway, served: Good, which: str) -> None:
    """5.3.10, 5.6.5: a genuine document whose time is over is not taken any more."""
    files = {"index.html": b"old lesson"}
    late = sign(manifest(files, 2, expires_s=NOW - 1 if which == "manifest" else LATER), PUBLISHER)
    documents = {
        "delegation": sign(delegation(2, expires_s=NOW - 1), *ROOTS[:2]),
        "config": sign(config(2, expires_s=NOW - 1), OPERATOR),
        "rollout": sign(rollout(late, 2, expires_s=NOW - 1), OPERATOR),
        "manifest": late,
    }
    named = [sign(rollout(late, 2), OPERATOR)] if which == "manifest" else []
    gateway.publish(files, late)
    gateway.want(*served.all, *named, documents[which])
    await truck.sync()
    assert [reason for reason in truck.rejected(DocumentKind[which.upper()]) if "expired" in reason]
    assert truck.active() == "v1"
    assert truck.config_version() == 1


async def test_freeze_at_an_expired_root(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.3.10: under a root whose time is over no role table is taken, until its holders have renewed it."""
    second = sign(root(2, expires_s=NOW + 86_400), *ROOTS[:2])
    gateway.want(second, *served.all)
    assert await truck.sync() is None
    truck.clock.floor_s = NOW + 2 * 86_400
    table = sign(delegation(2), *ROOTS[:2])
    gateway.hold(second, table)
    gateway.state(gateway.entry(second), gateway.entry(table), expires_s=LATER)
    await truck.sync()
    assert "expired" in truck.rejected(DocumentKind.DELEGATION)[0]
    third = sign(root(3), *ROOTS[:2])
    gateway.hold(third)
    gateway.state(*map(gateway.entry, (second, third, table)), expires_s=LATER)
    await truck.sync()
    assert truck.trust.delegation is not None
    assert truck.trust.delegation.version == 2


# ---- malicious mirrors ----


async def test_malicious_mirror_gives_another_true_document(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.6.1: what comes is what was named, also when something else is signed as well."""
    second, third = sign(config(2), OPERATOR), sign(config(3), OPERATOR)
    gateway.want(served.delegation, second)
    gateway.override[PATH_DOCUMENT] = lambda _, query: None if query == ("desired",) else third
    await truck.sync()
    assert truck.config_version() == 1
    assert "other bytes" in truck.rejected(DocumentKind.CONFIG)[0]
    gateway.override.clear()
    assert await truck.sync() is None
    assert truck.config_version() == 2


@pytest.mark.parametrize(
    "lie", [lambda data: b"", lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:]]
)
async def test_malicious_mirror_does_not_spoil_an_honest_one(
    truck: Truck, gateway: Gateway, served: Good, lie: Callable[[bytes], bytes]
) -> None:
    """5.6.2, 5.7.1: what one gateway spoilt is refused, leaves nothing, and comes right from the next."""
    good = Good.make(2)
    gateway.publish(good.files, good.manifest)
    gateway.want(*good.all)
    gateway.override[PATH_DOCUMENT] = lambda _, query: None if query == ("desired",) else lie(good.config)
    await truck.sync()
    assert truck.config_version() == 1
    gateway.override.clear()
    assert await truck.sync() is None
    assert truck.config_version() == 2
    assert await truck.work(lambda: truck.active() == "v2")


async def test_malicious_mirror_of_pieces_is_found_by_the_digest(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.7.1: pieces of the right length and wrong bytes make no file, and the honest gateway's do afterwards."""
    good = Good.make(2, files={"index.html": os.urandom(4_000)})
    gateway.publish(good.files, good.manifest)
    gateway.want(*good.all)
    assert await truck.sync() is None
    pack = gateway.packs[cose.digest(good.manifest)]
    gateway.override[PATH_PIECES] = lambda payload, query: bytes(len(gateway.piece(PiecesRequest.decode(payload))))
    await truck.work(lambda: bool(truck.rejected(DocumentKind.MANIFEST)), within_s=2)
    assert truck.active() == "v1"
    gateway.override.clear()
    assert gateway.packs[cose.digest(good.manifest)] == pack
    again = await truck.restarted()
    await again.sync()
    assert await again.work(lambda: again.active() == "v2")
    await again.close()
    truck.state, truck.writer = again.state, again.writer


# ---- mix and match ----


async def test_mix_and_match_of_versions(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.5.5: an old rollout beside a new configuration brings only what is new."""
    second, third = Good.make(2), Good.make(3)
    for good in (second, third):
        gateway.publish(good.files, good.manifest)
    gateway.want(*second.all)
    assert await truck.sync() is None
    assert await truck.work(lambda: truck.active() == "v2")
    gateway.want(second.delegation, third.config, served.rollout, served.manifest)
    await truck.sync()
    assert truck.rejected(DocumentKind.ROLLOUT)
    assert truck.config_version() == 3
    await truck.work(lambda: truck.active() != "v2", within_s=0.1)
    assert truck.active() == "v2"


async def test_mix_and_match_of_manifest_and_rollout(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.6.2: the manifest is the very one that the rollout names by digest, not one of the same bundle and version."""
    good = Good.make(2)
    other = sign(manifest({"index.html": b"another second version"}, 2), PUBLISHER)
    gateway.want(good.delegation, good.config, good.rollout, other)
    await truck.sync()
    assert truck.rejected(DocumentKind.MANIFEST)
    await truck.work(lambda: False, within_s=0.1)
    assert truck.active() == "v1"


async def test_mix_and_match_by_leaving_something_out(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.5: a desired state that names less takes nothing away."""
    for withheld in (*served.all, None):
        gateway.want(*[each for each in served.all if withheld not in (None, each)])
        assert await truck.sync() is None
        await truck.work(lambda: truck.active() != "v1", within_s=0.03)
    await unmoved(truck, served)


# ---- rollback ----


@pytest.mark.parametrize("depth", [1, 2])
async def test_rollback_of_a_document(truck: Truck, gateway: Gateway, served: Good, depth: int) -> None:
    """5.6.3: an older version is refused, also the one that the truck still keeps for itself."""
    latest = 1 + depth
    for version in range(2, latest + 1):
        good = Good.make(version)
        gateway.publish(good.files, good.manifest)
        gateway.want(sign(delegation(version), *ROOTS[:2]), good.config, good.rollout, good.manifest)
        assert await truck.sync() is None
        assert await truck.work(lambda label=f"v{version}": truck.active() == label)  # type: ignore[misc]
    truck.receipts.clear()
    gateway.want(*served.all)
    await truck.sync()
    assert truck.rejected(DocumentKind.CONFIG)
    assert truck.rejected(DocumentKind.ROLLOUT)
    assert truck.rejected(DocumentKind.DELEGATION)
    await truck.work(lambda: truck.active() != f"v{latest}", within_s=0.1)
    assert (truck.config_version(), truck.active()) == (latest, f"v{latest}")
    again = await truck.restarted()
    wanted = await again.downlink.wanted()
    assert wanted.config is not None
    assert wanted.config[1].version == latest
    assert {each.version for each in wanted.rollouts} <= {latest}
    assert again.trust.delegation is not None
    assert again.trust.delegation.version == latest
    await again.close()
    truck.state, truck.writer = again.state, again.writer


async def test_rollback_of_the_desired_state(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.4.3: an older desired state, and another one of the same version."""
    old = gateway.desired
    good = Good.make(2)
    gateway.publish(good.files, good.manifest)
    gateway.want(*good.all)
    assert await truck.sync() is None
    gateway.desired = old
    assert isinstance(await truck.sync(), RollbackError)
    gateway.state(version=gateway.version)
    assert isinstance(await truck.sync(), RollbackError)
    assert truck.config_version() == 2


async def test_rollback_of_the_root(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.3.5: a root follows the one before by one version, neither older, nor the same again, nor further on."""
    second = sign(root(2), *ROOTS[:2])
    gateway.want(second, *served.all)
    assert await truck.sync() is None
    for version in (1, 2, 4):
        gateway.want(sign(root(version, expires_s=LATER - 1), *ROOTS[:2]), *served.all)
        await truck.sync()
        assert truck.trust.root.version == 2
        assert truck.trust.root.expires_s == LATER


async def test_rollback_to_an_older_bundle_is_an_operators_right(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.6.3: the rollout's version counts: a new rollout may name an old manifest, an old rollout may not come back."""
    good = Good.make(2)
    gateway.publish(good.files, good.manifest)
    gateway.want(*good.all)
    assert await truck.sync() is None
    assert await truck.work(lambda: truck.active() == "v2")
    gateway.want(good.delegation, good.config, sign(rollout(served.manifest, 3), OPERATOR), served.manifest)
    assert await truck.sync() is None
    assert await truck.work(lambda: truck.active() == "v1")


# ---- vulnerability to key compromises ----


@pytest.mark.parametrize(
    "signers", [(OPERATOR,), (PUBLISHER,), (FAR_OPERATOR,), (FAR_PUBLISHER,), (ROOTS[0],), (GATEWAY, ROOTS[0])]
)
async def test_key_compromise_reaches_no_further_than_the_role(
    truck: Truck, gateway: Gateway, served: Good, signers: tuple[str, ...]
) -> None:
    """5.3.4, 5.6.2: one stolen key below a threshold, or of another role, group or prefix, signs nothing."""
    rightful = {(OPERATOR,): {"config", "rollout"}, (PUBLISHER,): {"manifest"}}.get(signers, set())
    forged = {kind: sign(document, *signers) for kind, document in FORGERIES.items() if kind not in rightful}
    named = []
    if "manifest" in forged:
        named = [sign(rollout(forged["manifest"], 2), OPERATOR)]
        gateway.publish(EVIL, forged["manifest"])
    gateway.want(*served.all, *named, *forged.values())
    await truck.sync()
    assert truck.refused(*forged.values())
    await truck.work(lambda: truck.active() != "v1", within_s=0.3 if named else 0.03)
    assert (truck.active(), truck.config_version(), truck.trust.root.version) == ("v1", 1, 1)


async def test_key_compromise_one_key_twice_is_no_threshold(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.3.4: a threshold counts distinct keys."""
    document = root(2, root=role(1, GATEWAY))
    twice = sign(document, ROOTS[0], ROOTS[0])
    gateway.want(*served.all, twice)
    await truck.sync()
    assert truck.rejected(DocumentKind.ROOT)
    assert truck.trust.root.version == 1


async def test_key_compromise_ends_with_rotation(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.3.4, 5.6.2: after a new root and a new role table the old keys sign nothing, and the new ones do."""
    next_root = sign(root(2, root=role(2, *NEW_ROOTS)), ROOTS[0], ROOTS[1], NEW_ROOTS[0], NEW_ROOTS[1])
    table = delegation(2, operators=(OperatorRole(GROUP, role(1, SECOND_OPERATOR)),))
    gateway.want(next_root, sign(table, *NEW_ROOTS[:2]), served.config, served.rollout, served.manifest)
    assert await truck.sync() is None
    truck.receipts.clear()
    gateway.want(sign(config(2), OPERATOR), sign(delegation(3), *ROOTS[:2]))
    await truck.sync()
    assert len(truck.rejected(DocumentKind.CONFIG)) == len(truck.rejected(DocumentKind.DELEGATION)) == 1
    gateway.want(sign(config(2), SECOND_OPERATOR))
    assert await truck.sync() is None
    assert truck.config_version() == 2


async def test_key_compromise_of_the_root_needs_the_old_threshold(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.3.4: a new root's own threshold does not do without the old one's."""
    usurped = root(2, root=role(2, *NEW_ROOTS))
    for signers in ((NEW_ROOTS[0], NEW_ROOTS[1]), (NEW_ROOTS[0], NEW_ROOTS[1], ROOTS[0]), (ROOTS[0], ROOTS[1])):
        gateway.want(*served.all, sign(usurped, *signers))
        await truck.sync()
        assert truck.trust.root.version == 1
    await unmoved(truck, served)


# ---- wrong software ----


async def test_wrong_software_for_another_truck(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.6: what operators truly signed for others is not for this truck."""
    others = [
        sign(config(2, addressee=Addressee(("zm-lark",))), OPERATOR),
        sign(config(2, addressee=Addressee((), "zambia")), FAR_OPERATOR),
        sign(rollout(served.manifest, 2, addressee=Addressee(("zm-lark",))), OPERATOR),
    ]
    gateway.want(*served.all, *others)
    await truck.sync()
    assert len(truck.rejected(DocumentKind.CONFIG)) == 2
    assert len(truck.rejected(DocumentKind.ROLLOUT)) == 1
    await unmoved(truck, served)


async def test_wrong_software_by_another_trucks_desired_state(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.4.2: a desired state is for one truck."""
    gateway.state(truck="zm-lark")
    refusal = await truck.sync()
    assert refusal is not None
    assert "zm-lark" in str(refusal)


async def test_wrong_software_under_a_known_name(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.6.7: a rollout of one bundle that names another bundle's manifest changes neither bundle."""
    games = sign(manifest({"play.html": b"game"}, 9, name="games"), FAR_PUBLISHER)
    gateway.publish({"play.html": b"game"}, games)
    gateway.want(served.delegation, served.config, sign(rollout(games, 2), OPERATOR), games)
    await truck.sync()
    await truck.work(lambda: truck.active("games") is not None, within_s=0.3)
    assert truck.active() == "v1"
    assert truck.active("games") is None


async def test_wrong_kind_of_document(truck: Truck, gateway: Gateway, served: Good) -> None:
    """5.6.2: a true document of one kind is not taken for one of another."""
    second = sign(config(2), OPERATOR)
    gateway.hold(second)
    line = gateway.entry(second)
    for kind in set(DocumentKind) - {DocumentKind.CONFIG}:
        truck.receipts.clear()
        gateway.state(DesiredEntry(kind, 7, line.digest, line.size))
        await truck.sync()
        assert truck.config_version() == 1, kind
    await unmoved(truck, served)


async def test_a_document_of_a_smaller_size_than_named_is_judged_by_its_bytes(
    truck: Truck, gateway: Gateway, served: Good
) -> None:
    """5.6.1: the size chooses the way to fetch it; the digest decides."""
    second = sign(config(2), OPERATOR)
    gateway.hold(second)
    gateway.state(DesiredEntry(DocumentKind.CONFIG, 2, cose.digest(second), DOCUMENT_INLINE_BYTES_MAX))
    assert await truck.sync() is None
    assert truck.config_version() == 2
