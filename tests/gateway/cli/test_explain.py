"""What a signer reads before signing: every change is told, and only changes."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.cli.explain import explain
from protocol.documents import (
    Addressee,
    Config,
    Delegation,
    ExchangeKey,
    Manifest,
    ManifestFile,
    OperatorRole,
    PublisherRole,
    RoleKeys,
    Rollout,
    Root,
)
from protocol.numbers import DocumentKind

A, B, C, D = (bytes([number]) * 32 for number in range(1, 5))
NAMES = {A: "asha", B: "baraka", C: "chausiku", D: "daudi"}
DATES = {"version": 1, "issued_s": 1, "expires_s": 86_400}
ROOT = Root(document=DocumentKind.ROOT, root=RoleKeys(2, (A, B, C)), gateway=RoleKeys(1, (D,)), **DATES)  # type: ignore[arg-type]
TABLE = Delegation(
    document=DocumentKind.DELEGATION,
    operators=(OperatorRole("kenya", RoleKeys(1, (A, B))),),
    publishers=(PublisherRole("maths", RoleKeys(1, (C,))),),
    **DATES,  # type: ignore[arg-type]
)


def lines(document: object, before: object = None) -> str:
    return "\n".join(explain(document, before, NAMES.__getitem__))  # type: ignore[arg-type]


def test_validity_and_version_are_always_told() -> None:
    for document in (ROOT, TABLE):
        assert lines(document).endswith("Valid until 1970-01-02 00:00:00Z; this is version 1.")


@pytest.mark.parametrize("role", [RoleKeys(1, (A, B, C)), RoleKeys(2, (A, B)), RoleKeys(1, (A,))])
def test_a_root_that_survives_no_loss_or_theft_is_warned_of(role: RoleKeys) -> None:
    assert "WARNING" in lines(replace(ROOT, root=role))
    assert "WARNING" not in lines(ROOT)


def test_every_change_of_a_root_is_told() -> None:
    new = replace(ROOT, version=2, root=RoleKeys(1, (A, B, D)), gateway=RoleKeys(1, (C,)))
    text = lines(new, ROOT)
    for told in (
        "Root: daudi is added",
        "Root: chausiku is removed",
        "1 signatures are needed (was 2)",
        "Gateway freshness: chausiku is added",
        "Gateway freshness: daudi is removed",
    ):
        assert told in text
    assert "Only validity" in lines(replace(ROOT, version=2), ROOT)


def test_a_root_that_changes_edhoc_keys_says_what_trucks_do_then() -> None:
    first = replace(ROOT, version=2, exchange=(ExchangeKey(1, A),))
    assert "came with a truck's enrolment code is not believed any more" in lines(first, ROOT)
    text = lines(replace(first, version=3, exchange=(ExchangeKey(2, B),)), first)
    assert f"EDHOC key 2 of the gateway is believed: {B.hex()}" in text
    assert "EDHOC key 1 is not believed any more" in text
    assert "Every truck makes new sessions" in text


def test_a_later_root_without_the_one_before_is_never_called_the_first() -> None:
    text = lines(replace(ROOT, version=3))
    assert "Root 2 is not here" in text
    assert "first root" not in text


def test_every_change_of_a_delegation_is_told_and_nothing_else() -> None:
    assert "stays as it is" in lines(replace(TABLE, version=2), TABLE)
    new = replace(
        TABLE,
        operators=(OperatorRole("kenya", RoleKeys(1, (A,))), OperatorRole("*", RoleKeys(2, (A, D)))),
        publishers=(),
        revoked=("ke-arrow",),
    )
    text = lines(new, TABLE)
    for told in (
        "group kenya: signed by 1 of asha from now on (was 1 of asha, baraka)",
        "What only baraka signed is not believed any more",
        "all groups: signed by 2 of asha, daudi",
        "Bundles named maths*: nobody any more (was 1 of chausiku)",
        "Truck ke-arrow is revoked",
    ):
        assert told in text
    assert "Truck ke-arrow may enrol again" in lines(TABLE, new)


def test_other_documents_say_whom_they_are_for() -> None:
    config = Config(document=DocumentKind.CONFIG, addressee=Addressee((), "kenya"), **DATES)  # type: ignore[arg-type]
    files = (ManifestFile("a", 7, bytes(32)),)
    manifest = Manifest(
        document=DocumentKind.MANIFEST, name="maths", label="2", content="static", files=files, **DATES  # type: ignore[arg-type]
    )  # fmt: skip
    rollout = Rollout(document=DocumentKind.ROLLOUT, addressee=Addressee(("a", "b")), bundle="maths", **DATES)  # type: ignore[arg-type]
    assert "Configuration for group kenya" in lines(config)
    assert "Bundle maths 2: 1 files, 7 bytes" in lines(manifest)
    assert "truck a, b should have of bundle maths: nothing (it is taken away)" in lines(rollout)
