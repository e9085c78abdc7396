"""Trust decisions, one check a test: what is believed, and what is refused with nothing changed."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec import structs

from protocol import cose
from protocol.documents import (
    Addressee,
    Config,
    Delegation,
    Desired,
    DesiredEntry,
    Document,
    Manifest,
    ManifestFile,
    OperatorRole,
    PublisherRole,
    RoleKeys,
    Rollout,
    Root,
    Stick,
    StickTruck,
    document_aad,
    sign_document,
)
from protocol.errors import ExpiredError, MalformedError, PeerError, RollbackError, SignatureError, UntrustedError
from protocol.numbers import DocumentKind
from protocol.trust import Trusted, TrustedSet, version_name

NOW = 1_800_000_000
LATER = NOW + 86_400
TRUCK, GROUP = "ke-arrow", "kenya"

ROOTS = [cose.SigningKey(bytes([n]) * 32) for n in (1, 2, 3)]
NEXT_ROOTS = [cose.SigningKey(bytes([n]) * 32) for n in (4, 5, 6)]
GATEWAY = cose.SigningKey(b"\x10" * 32)
OPERATOR = cose.SigningKey(b"\x20" * 32)
SECOND_OPERATOR = cose.SigningKey(b"\x21" * 32)
FAR_OPERATOR = cose.SigningKey(b"\x22" * 32)
PUBLISHER = cose.SigningKey(b"\x30" * 32)
STRANGER = cose.SigningKey(b"\x40" * 32)


def role(threshold: int, *keys: cose.SigningKey) -> RoleKeys:
    return RoleKeys(threshold, tuple(key.public for key in keys))


def root(version: int = 1, **changes: Any) -> Root:
    document = Root(DocumentKind.ROOT, version, NOW - 10, LATER, role(2, *ROOTS), role(1, GATEWAY))
    return structs.replace(document, **changes)


def delegation(version: int = 1, **changes: Any) -> Delegation:
    document = Delegation(
        DocumentKind.DELEGATION,
        version,
        NOW - 10,
        LATER,
        publishers=(PublisherRole("math-", role(1, PUBLISHER)),),
        operators=(
            OperatorRole(GROUP, role(1, OPERATOR, SECOND_OPERATOR)),
            OperatorRole("zambia", role(1, FAR_OPERATOR)),
        ),
    )
    return structs.replace(document, **changes)


def config(version: int = 1, **changes: Any) -> Config:
    return structs.replace(Config(DocumentKind.CONFIG, version, NOW - 10, LATER, Addressee((TRUCK,))), **changes)


def manifest(version: int = 1, **changes: Any) -> Manifest:
    files = (ManifestFile("index.html", 5, b"f" * 32),)
    document = Manifest(DocumentKind.MANIFEST, version, NOW - 10, LATER, "math-1", "1.0", "static", files)
    return structs.replace(document, **changes)


def rollout(version: int = 1, **changes: Any) -> Rollout:
    document = Rollout(DocumentKind.ROLLOUT, version, NOW - 10, LATER, Addressee((), GROUP), "math-1", b"m" * 32)
    return structs.replace(document, **changes)


def stick(**changes: Any) -> Stick:
    for_us = (StickTruck(TRUCK, bytes(32)),)
    return structs.replace(Stick(DocumentKind.STICK, 1, NOW - 10, LATER, bytes(16), for_us), **changes)


def desired(version: int = 1, **changes: Any) -> Desired:
    return structs.replace(Desired(DocumentKind.DESIRED, version, NOW - 10, LATER, TRUCK), **changes)


ROOT_SIGNED = sign_document(root(), ROOTS[:2])


def trusted(*, truck: str | None = TRUCK, **options: Any) -> TrustedSet:
    """Return a set that trusts a root and a delegation."""
    trust = TrustedSet(ROOT_SIGNED, truck=truck, group=GROUP if truck else "", **options)
    trust.accept_delegation(sign_document(delegation(), ROOTS[:2]), NOW)
    return trust


def refuses(trust: TrustedSet, error: type[PeerError], accept: Callable[[], object], match: str | None = None) -> None:
    """Check that an acceptance fails with this very error and changes nothing."""
    before = (trust.root, trust.delegation, trust.highest)
    with pytest.raises(error, match=match) as raised:
        accept()
    assert type(raised.value) is error
    assert (trust.root, trust.delegation, trust.highest) == before


def test_the_whole_chain_is_believed() -> None:
    trust = trusted()
    assert trust.accept_desired(sign_document(desired(), [GATEWAY]), NOW).truck == TRUCK
    assert trust.accept_config(sign_document(config(), [OPERATOR]), NOW).version == 1
    signed = sign_document(manifest(), [PUBLISHER])
    trust.accept_rollout(sign_document(rollout(manifest=cose.digest(signed)), [OPERATOR]), NOW)
    assert trust.accept_manifest(signed, NOW, named=cose.digest(signed)).name == "math-1"
    assert {kind for kind, _ in trust.highest} == set(DocumentKind) - {DocumentKind.MANIFEST, DocumentKind.STICK}


# ---- root ----


@pytest.mark.parametrize("signers", [ROOTS[:1], [ROOTS[0], STRANGER], [STRANGER], NEXT_ROOTS])
def test_first_root_needs_its_own_threshold(signers: list[cose.SigningKey]) -> None:
    with pytest.raises(SignatureError):
        TrustedSet(sign_document(root(), signers))


def test_next_root_needs_the_old_and_the_new_threshold() -> None:
    after = root(2, root=role(2, *NEXT_ROOTS))
    trust = trusted()
    for signers in (ROOTS, NEXT_ROOTS, [*ROOTS[:1], *NEXT_ROOTS], [*ROOTS, *NEXT_ROOTS[:1]]):
        refuses(trust, SignatureError, lambda signers=signers: trust.update_root(sign_document(after, signers)))
    assert trust.update_root(sign_document(after, [*ROOTS[:2], *NEXT_ROOTS[:2]])) == after
    assert trust.highest[(DocumentKind.ROOT, "")].version == 2


@pytest.mark.parametrize("version", [1, 3, 1 << 53])
def test_root_chain_takes_no_step_but_the_next(version: int) -> None:
    trust = trusted()
    signed = sign_document(root(version, issued_s=NOW), ROOTS[:2])
    refuses(trust, RollbackError, lambda: trust.update_root(signed), "does not follow")


def test_new_gateway_keys_void_the_versions_that_stolen_ones_reached() -> None:
    trust = trusted()
    trust.accept_desired(sign_document(desired(1 << 53), [GATEWAY]), NOW)
    config_signed = sign_document(config(7), [OPERATOR])
    trust.accept_config(config_signed, NOW)
    trust.update_root(sign_document(root(2), ROOTS[:2]))
    refuses(trust, RollbackError, lambda: trust.accept_desired(sign_document(desired(2), [GATEWAY]), NOW))
    trust.update_root(sign_document(root(3, gateway=role(1, STRANGER)), ROOTS[:2]))
    assert trust.accept_desired(sign_document(desired(2), [STRANGER]), NOW).version == 2
    refuses(trust, SignatureError, lambda: trust.accept_desired(sign_document(desired(3), [GATEWAY]), NOW))
    refuses(trust, RollbackError, lambda: trust.accept_config(sign_document(config(6), [OPERATOR]), NOW))


def test_an_expired_root_delegates_no_more() -> None:
    trust = TrustedSet(sign_document(root(expires_s=NOW), ROOTS[:2]), truck=TRUCK, group=GROUP)
    refuses(trust, ExpiredError, lambda: trust.accept_delegation(sign_document(delegation(), ROOTS[:2]), NOW))


# ---- thresholds and signatures ----


def test_a_threshold_counts_distinct_keys_not_signatures() -> None:
    trust = trusted()
    twice = sign_document(delegation(2), [ROOTS[0], ROOTS[0]])
    refuses(trust, SignatureError, lambda: trust.accept_delegation(twice, NOW), "1 more signature of")


def test_a_key_listed_twice_in_its_role_counts_once() -> None:
    repeated = delegation(2, operators=(OperatorRole("*", role(2, OPERATOR, OPERATOR)),))
    trust = trusted()
    trust.accept_delegation(sign_document(repeated, ROOTS[:2]), NOW)
    refuses(trust, SignatureError, lambda: trust.accept_config(sign_document(config(), [OPERATOR, OPERATOR]), NOW))


def test_keys_of_two_roles_do_not_add_up() -> None:
    two = (OperatorRole(GROUP, role(2, OPERATOR, SECOND_OPERATOR)), OperatorRole("*", role(2, FAR_OPERATOR, STRANGER)))
    trust = trusted()
    trust.accept_delegation(sign_document(delegation(2, operators=two), ROOTS[:2]), NOW)
    mixed = sign_document(config(), [OPERATOR, STRANGER])
    refuses(trust, SignatureError, lambda: trust.accept_config(mixed, NOW))
    assert trust.accept_config(sign_document(config(), [FAR_OPERATOR, STRANGER]), NOW)


def test_a_known_key_with_a_wrong_signature_refuses_the_document() -> None:
    good = cose.parse(sign_document(delegation(2), ROOTS))
    broken = [structs_replace(each, n) for n, each in enumerate(good.signatures)]
    trust = trusted()
    signed = cose.assemble(good.payload, broken)
    refuses(trust, SignatureError, lambda: trust.accept_delegation(signed, NOW), "does not verify")


def structs_replace(each: cose.Countersigned, n: int) -> cose.Countersigned:
    return each if n else cose.Countersigned(each.key_id, bytes(64))


def test_a_signature_of_one_kind_means_nothing_for_another() -> None:
    trust = trusted()
    for kind in set(DocumentKind) - {DocumentKind.CONFIG}:
        signed = cose.sign1(OPERATOR, config().encode(), document_aad(kind))
        refuses(trust, SignatureError, lambda signed=signed: trust.accept_config(signed, NOW))


def test_a_document_of_another_kind_is_refused() -> None:
    trust = trusted()
    for accept, signed in (
        (trust.accept_config, sign_document(rollout(), [OPERATOR])),
        (trust.accept_rollout, sign_document(config(), [OPERATOR])),
        (trust.accept_desired, sign_document(config(), [GATEWAY])),
        (trust.accept_delegation, sign_document(root(2), ROOTS)),
    ):
        refuses(trust, MalformedError, lambda accept=accept, signed=signed: accept(signed, NOW), "was wanted")


def test_changed_bytes_are_refused() -> None:
    trust = trusted()
    signed = bytearray(sign_document(config(batch_age_s=600), [OPERATOR]))
    at = signed.index(bytes.fromhex("190258"))
    signed[at + 2] ^= 1
    refuses(trust, SignatureError, lambda: trust.accept_config(bytes(signed), NOW))


# ---- versions ----


@dataclass
class Stream:
    """One kind of versioned document and who signs it."""

    make: Callable[..., Document]
    keys: list[cose.SigningKey]

    def signed(self, version: int, **changes: Any) -> bytes:
        return sign_document(self.make(version, **changes), self.keys)


STREAMS = [
    pytest.param(Stream(delegation, ROOTS[:2]), id="delegation"),
    pytest.param(Stream(desired, [GATEWAY]), id="desired"),
    pytest.param(Stream(config, [OPERATOR]), id="config"),
    pytest.param(Stream(rollout, [OPERATOR]), id="rollout"),
]


def kind_of(stream: Stream) -> DocumentKind:
    return stream.make(1).document


@pytest.mark.parametrize("stream", STREAMS)
def test_a_lower_version_is_refused_also_after_a_restart(stream: Stream) -> None:
    trust = trusted()
    trust.accept(stream.signed(5), kind_of(stream), NOW)
    refuses(trust, RollbackError, lambda: trust.accept(stream.signed(4), kind_of(stream), NOW), "older than version 5")
    again = TrustedSet(ROOT_SIGNED, truck=TRUCK, group=GROUP, highest=trust.highest)
    if kind_of(stream) is not DocumentKind.DELEGATION:
        again.delegation = trust.delegation
    refuses(again, RollbackError, lambda: again.accept(stream.signed(4), kind_of(stream), NOW))
    assert again.accept(stream.signed(6), kind_of(stream), NOW).version == 6


@pytest.mark.parametrize("stream", STREAMS)
def test_the_same_version_must_be_the_same_bytes(stream: Stream) -> None:
    trust = trusted()
    signed = stream.signed(5)
    trust.accept(signed, kind_of(stream), NOW)
    trust.accept(signed, kind_of(stream), NOW)
    other = stream.signed(5, issued_s=NOW - 9)
    refuses(trust, RollbackError, lambda: trust.accept(other, kind_of(stream), NOW), "another document of version 5")


@pytest.mark.parametrize("stream", STREAMS)
def test_an_expired_document_is_refused_to_the_second(stream: Stream) -> None:
    trust = trusted()
    signed = stream.signed(5, expires_s=NOW + 1)
    refuses(trust, ExpiredError, lambda: trust.accept(signed, kind_of(stream), NOW + 1))
    assert trust.accept(signed, kind_of(stream), NOW).version == 5


@pytest.mark.parametrize("stream", STREAMS)
def test_a_refused_document_leaves_no_version_behind(stream: Stream) -> None:
    trust = trusted()
    refuses(
        trust, SignatureError, lambda: trust.accept(sign_document(stream.make(99), [STRANGER]), kind_of(stream), NOW)
    )
    refuses(trust, ExpiredError, lambda: trust.accept(stream.signed(99, expires_s=NOW), kind_of(stream), NOW))
    assert trust.accept(stream.signed(2), kind_of(stream), NOW).version == 2


def test_versions_of_different_bundles_and_addressees_do_not_meet() -> None:
    trust = trusted()
    trust.accept_rollout(sign_document(rollout(9), [OPERATOR]), NOW)
    trust.accept_rollout(sign_document(rollout(1, bundle="math-2"), [OPERATOR]), NOW)
    trust.accept_config(sign_document(config(9), [OPERATOR]), NOW)
    trust.accept_config(sign_document(config(1, addressee=Addressee((), GROUP)), [OPERATOR]), NOW)
    assert len(trust.highest) == 6


# ---- whom it is for ----


def test_a_desired_state_of_another_truck_is_refused() -> None:
    trust = trusted()
    signed = sign_document(desired(truck="ke-huawei"), [GATEWAY])
    refuses(trust, UntrustedError, lambda: trust.accept_desired(signed, NOW), "ke-huawei")


@pytest.mark.parametrize("addressee", [Addressee(("ke-huawei",)), Addressee((), "zambia")])
def test_a_document_for_others_is_refused(addressee: Addressee) -> None:
    trust = trusted()
    both = [OPERATOR, FAR_OPERATOR]
    for signed, accept in (
        (sign_document(config(addressee=addressee), both), trust.accept_config),
        (sign_document(rollout(addressee=addressee), both), trust.accept_rollout),
    ):
        refuses(trust, UntrustedError, lambda accept=accept, signed=signed: accept(signed, NOW), "is for")


@pytest.mark.parametrize("addressee", [Addressee((TRUCK,)), Addressee((), GROUP)])
def test_an_operator_of_another_group_cannot_reach_a_truck_by_naming_it(addressee: Addressee) -> None:
    trust = trusted()
    signed = sign_document(config(addressee=addressee), [FAR_OPERATOR])
    refuses(trust, SignatureError, lambda: trust.accept_config(signed, NOW))


def test_a_group_without_operators_takes_nothing() -> None:
    trust = TrustedSet(ROOT_SIGNED, truck=TRUCK, group="senegal")
    trust.accept_delegation(sign_document(delegation(), ROOTS[:2]), NOW)
    signed = sign_document(config(), [OPERATOR])
    refuses(trust, UntrustedError, lambda: trust.accept_config(signed, NOW), "no operator is delegated")


def test_an_operator_of_all_groups_reaches_every_truck() -> None:
    trust = trusted()
    everywhere = delegation(2, operators=(OperatorRole("*", role(1, STRANGER)),))
    trust.accept_delegation(sign_document(everywhere, ROOTS[:2]), NOW)
    assert trust.accept_config(sign_document(config(), [STRANGER]), NOW)


def test_a_new_delegation_takes_the_old_keys_away() -> None:
    trust = trusted()
    trust.accept_delegation(sign_document(delegation(2, operators=()), ROOTS[:2]), NOW)
    refuses(trust, UntrustedError, lambda: trust.accept_config(sign_document(config(), [OPERATOR]), NOW))


def test_a_gateway_checks_the_addressed_group() -> None:
    trust = trusted(truck=None)
    to_zambia = config(addressee=Addressee((), "zambia"))
    refuses(trust, SignatureError, lambda: trust.accept_config(sign_document(to_zambia, [OPERATOR]), NOW))
    assert trust.accept_config(sign_document(to_zambia, [FAR_OPERATOR]), NOW)


# ---- delegation and manifests ----


def test_without_a_delegation_nobody_may_sign_anything() -> None:
    trust = TrustedSet(ROOT_SIGNED, truck=TRUCK, group=GROUP)
    for signed, kind in (
        (sign_document(config(), [OPERATOR]), DocumentKind.CONFIG),
        (sign_document(rollout(), [OPERATOR]), DocumentKind.ROLLOUT),
        (sign_document(manifest(), [PUBLISHER]), DocumentKind.MANIFEST),
    ):
        refuses(
            trust, UntrustedError, lambda signed=signed, kind=kind: trust.accept(signed, kind, NOW), "no delegation"
        )


def test_an_expired_delegation_delegates_no_more() -> None:
    trust = trusted()
    for signed, kind in (
        (sign_document(config(expires_s=LATER + 9), [OPERATOR]), DocumentKind.CONFIG),
        (sign_document(manifest(expires_s=LATER + 9), [PUBLISHER]), DocumentKind.MANIFEST),
    ):
        refuses(trust, ExpiredError, lambda signed=signed, kind=kind: trust.accept(signed, kind, LATER))


@pytest.mark.parametrize("name", ["physics", "mat", "math", "amath-1"])
def test_a_publisher_signs_only_below_its_prefix(name: str) -> None:
    trust = trusted()
    signed = sign_document(manifest(name=name), [PUBLISHER])
    refuses(trust, UntrustedError, lambda: trust.accept_manifest(signed, NOW), f"named {name}")


def test_a_manifest_by_anybody_else_is_refused() -> None:
    trust = trusted()
    for key in (STRANGER, OPERATOR, GATEWAY, ROOTS[0]):
        signed = sign_document(manifest(), [key])
        refuses(trust, SignatureError, lambda signed=signed: trust.accept_manifest(signed, NOW))


def test_a_manifest_must_be_the_one_that_the_rollout_names() -> None:
    trust = trusted()
    signed = sign_document(manifest(2), [PUBLISHER])
    older = cose.digest(sign_document(manifest(1), [PUBLISHER]))
    refuses(trust, UntrustedError, lambda: trust.accept_manifest(signed, NOW, named=older), "rollout names")


def test_a_rollout_may_go_back_to_an_older_manifest() -> None:
    trust = trusted()
    newer, older = (sign_document(manifest(version), [PUBLISHER]) for version in (2, 1))
    for signed in (newer, older):
        assert trust.accept_manifest(signed, NOW, named=cose.digest(signed))


def test_an_expired_manifest_is_refused() -> None:
    trust = trusted()
    signed = sign_document(manifest(expires_s=NOW), [PUBLISHER])
    refuses(trust, ExpiredError, lambda: trust.accept_manifest(signed, NOW))


# ---- attackers ----


def test_a_stolen_gateway_key_makes_a_truck_do_nothing() -> None:
    trust = trusted()
    forged: list[tuple[Document, DocumentKind]] = [
        (config(9), DocumentKind.CONFIG),
        (rollout(9), DocumentKind.ROLLOUT),
        (manifest(9), DocumentKind.MANIFEST),
        (delegation(9, operators=(OperatorRole("*", role(1, GATEWAY)),)), DocumentKind.DELEGATION),
        (root(2, root=role(1, GATEWAY)), DocumentKind.ROOT),
    ]
    for document, kind in forged:
        signed = sign_document(document, [GATEWAY])
        refuses(trust, SignatureError, lambda signed=signed, kind=kind: trust.accept(signed, kind, NOW))
    # All that it can do is to name digests, and those must still verify.
    entry = DesiredEntry(DocumentKind.CONFIG, 9, b"x" * 32, 100)
    assert trust.accept_desired(sign_document(desired(entries=(entry,)), [GATEWAY]), NOW)


@pytest.mark.parametrize(
    ("signer", "kind"), list(itertools.product([OPERATOR, PUBLISHER, STRANGER, ROOTS[0]], DocumentKind))
)
def test_no_key_below_the_root_signs_for_another_role(signer: cose.SigningKey, kind: DocumentKind) -> None:
    documents = {
        DocumentKind.ROOT: root(2),
        DocumentKind.DELEGATION: delegation(2),
        DocumentKind.CONFIG: config(),
        DocumentKind.MANIFEST: manifest(),
        DocumentKind.ROLLOUT: rollout(),
        DocumentKind.DESIRED: desired(),
        DocumentKind.STICK: stick(),
    }
    allowed = {OPERATOR: (DocumentKind.CONFIG, DocumentKind.ROLLOUT), PUBLISHER: (DocumentKind.MANIFEST,)}
    if kind in allowed.get(signer, ()):
        return
    trust = trusted()
    signed = sign_document(documents[kind], [signer])
    refuses(trust, SignatureError, lambda: trust.accept(signed, kind, NOW))


def test_a_stick_is_believed_from_the_gateway_alone_for_its_trucks_until_it_expires() -> None:
    trust = trusted()
    assert trust.check_stick(sign_document(stick(), [GATEWAY]), NOW)[1].truck == TRUCK
    assert (DocumentKind.STICK, "") not in trust.highest
    for changed, error in (
        (stick(trucks=(StickTruck("other", bytes(32)),)), UntrustedError),
        (stick(expires_s=NOW), ExpiredError),
    ):
        signed = sign_document(changed, [GATEWAY])
        refuses(trust, error, lambda signed=signed: trust.check_stick(signed, NOW))


def test_highest_is_a_copy_and_names_digests() -> None:
    trust = trusted()
    signed = sign_document(config(3), [OPERATOR])
    trust.accept_config(signed, NOW)
    assert trust.highest[(DocumentKind.CONFIG, TRUCK)] == Trusted(3, cose.digest(signed))
    trust.highest.clear()  # type: ignore[attr-defined]
    assert trust.highest


def test_names_under_which_versions_count() -> None:
    assert version_name(config(addressee=Addressee(("b", "a")))) == "a,b"
    assert version_name(config(addressee=Addressee((), GROUP))) == "group:kenya"
    assert version_name(rollout()) == "math-1@group:kenya"
    assert version_name(manifest()) == "math-1"
    assert version_name(desired()) == TRUCK
    assert version_name(root()) == version_name(delegation()) == ""
