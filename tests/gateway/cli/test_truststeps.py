"""The steps from one role table to the next refuse what could never work."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.output import CommandError
from gateway.cli.truststeps import change_keys, parse_role, remove_keys, replaced
from gateway.keystore import Keystore, PublicLine
from protocol.documents import Delegation, OperatorRole, PublisherRole, RoleKeys
from protocol.numbers import DocumentKind

A, B, C, D = (bytes([number]) * 32 for number in range(1, 5))


@pytest.fixture
def store(tmp_path: Path) -> Keystore:
    made = Keystore(tmp_path / "keys")
    made.add(PublicLine("asha", "operator", A))
    made.add(PublicLine("juma", "operator", B))
    return made


def table(*roles: RoleKeys) -> Delegation:
    operators = tuple(OperatorRole(f"g{number}", role) for number, role in enumerate(roles))
    publishers = (PublisherRole("", RoleKeys(1, (C,))),)
    return Delegation(
        document=DocumentKind.DELEGATION, version=1, issued_s=1, expires_s=2, operators=operators, publishers=publishers
    )


@pytest.mark.parametrize(
    ("text", "scope", "role"),
    [
        ("kenya=asha", "kenya", RoleKeys(1, (A,))),
        ("*=asha,juma:2", "*", RoleKeys(2, (A, B))),
        ("kenya=asha,asha,juma:1", "kenya", RoleKeys(1, (A, B))),
        (f"={'03' * 32}", "", RoleKeys(1, (C,))),
    ],
)
def test_roles_are_read_as_they_are_written(store: Keystore, text: str, scope: str, role: RoleKeys) -> None:
    assert parse_role(text, store) == (scope, role)


@pytest.mark.parametrize(
    "text",
    ["kenya", "kenya=", "kenya=:1", "kenya=asha,asha:2", "kenya=asha:0", "kenya=asha:9", "kenya=asha:x", "kenya=asha:"],
)
def test_roles_that_could_never_sign_are_refused(store: Keystore, text: str) -> None:
    with pytest.raises(CommandError):
        parse_role(text, store)


def test_keys_go_and_come_and_the_threshold_follows_what_is_asked() -> None:
    assert change_keys(RoleKeys(2, (A, B)), {A}, [C], None) == RoleKeys(2, (B, C))
    assert change_keys(RoleKeys(1, (A,)), set(), [B, C], 2) == RoleKeys(2, (A, B, C))
    assert change_keys(RoleKeys(2, (A, B)), {A}, [], 1) == RoleKeys(1, (B,))
    assert change_keys(RoleKeys(2, (A, B)), {A, B}, [C, D, C], None) == RoleKeys(2, (C, D))
    with pytest.raises(CommandError, match="never come together"):
        change_keys(RoleKeys(2, (A, B)), {A}, [B], None)
    with pytest.raises(CommandError, match="not one of that role"):
        change_keys(RoleKeys(1, (A,)), {B}, [C], None)


def test_a_removed_key_leaves_every_role_and_empty_roles_go() -> None:
    left = remove_keys(table(RoleKeys(1, (A, B)), RoleKeys(1, (A,))), [A])
    assert left.operators == (OperatorRole("g0", RoleKeys(1, (B,))),)
    assert left.publishers == (PublisherRole("", RoleKeys(1, (C,))),)


def test_a_role_that_could_not_sign_any_more_is_not_left_behind() -> None:
    with pytest.raises(CommandError, match="delegate it anew"):
        remove_keys(table(RoleKeys(2, (A, B))), [A])
    with pytest.raises(CommandError, match="trust rotate"):
        remove_keys(table(RoleKeys(1, (A,))), [B])


def test_what_a_truck_would_refuse_is_refused_here() -> None:
    with pytest.raises(CommandError, match="no truck would accept"):
        replaced(table(), revoked=("Not A Name",))
    assert replaced(table(), version=2).version == 2
