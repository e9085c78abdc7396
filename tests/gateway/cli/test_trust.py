"""Who may sign what, step by step, as the holders of keys on several machines do it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.api.auth import Role
from gateway.cli.trustfiles import read_signed
from protocol.documents import Delegation, ExchangeKey, Root
from protocol.trust import TrustedSet
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import add_truck
from tests.gateway.running import FRESHNESS, TOKENS, RunningGateway

GATEWAY = ("--gateway", FRESHNESS.public.hex())


@pytest.fixture
def roots(digitruck: Digitruck) -> tuple[str, ...]:
    """Three root keys on this machine, as arguments of `trust init`."""
    for name in ("r1", "r2", "r3"):
        digitruck("key", "new", name, "--role", "root")
    return ("--root", "r1", "--root", "r2", "--root", "r3", *GATEWAY)


def trust_file(home: Path, name: str) -> Path:
    return home / "data" / "digitruck" / "trust" / name


def test_a_root_is_explained_before_it_is_signed_and_needs_two_sittings(
    digitruck: Digitruck, roots: tuple[str, ...], home: Path
) -> None:
    made = digitruck("trust", "init", *roots, "--key", "r1", "--yes")
    assert "every truck that enrols from now on pins it" in made.out
    assert "2 of r1 (" in made.out
    assert "digitruck trust sign root-1.cose" in made.out
    unfinished = digitruck("trust", "show", "--json").json
    assert [each["complete"] for each in unfinished] == [False]
    signed = digitruck("trust", "sign", "root-1.cose", "--key", "r3", "--yes")
    assert "Complete" in signed.out
    root = read_signed(trust_file(home, "root-1.cose"))
    assert TrustedSet(root.signed).root == root.document


def test_nothing_is_signed_when_nobody_confirms(digitruck: Digitruck, roots: tuple[str, ...], home: Path) -> None:
    refused = digitruck("trust", "init", *roots, "--key", "r1", ok=False)
    assert refused.code == 1
    assert "--yes" in refused.err
    assert "pins it" in refused.out
    assert not trust_file(home, "root-1.cose").exists()


def test_a_key_that_does_not_count_cannot_sign(digitruck: Digitruck, roots: tuple[str, ...], home: Path) -> None:
    digitruck("key", "new", "other", "--role", "root")
    refused = digitruck("trust", "init", *roots, "--key", "r1", "--key", "other", "--yes", ok=False)
    assert (refused.code, "other may not sign this" in refused.err) == (1, True)
    digitruck("trust", "init", *roots, "--key", "r1", "--yes")
    before = trust_file(home, "root-1.cose").read_bytes()
    assert digitruck("trust", "sign", "root-1.cose", "--key", "other", "--yes", ok=False).code == 1
    assert trust_file(home, "root-1.cose").read_bytes() == before


def test_an_incomplete_document_is_not_pushed_and_not_built_upon(
    digitruck: Digitruck, roots: tuple[str, ...], signed_in: RunningGateway
) -> None:
    digitruck("trust", "init", *roots, "--key", "r1", "--yes")
    refused = digitruck("trust", "push", ok=False)
    assert "not complete" in refused.err
    refused = digitruck("trust", "delegate", "--operator", "*=r1", "--key", "r1", "--yes", ok=False)
    assert "still lacks signatures" in refused.err
    assert digitruck("trust", "init", *roots, "--key", "r1", "--yes", ok=False).code == 1


def test_copies_that_were_signed_apart_are_merged(
    digitruck: Digitruck, roots: tuple[str, ...], home: Path, signed_in: RunningGateway
) -> None:
    digitruck("trust", "init", *roots, "--key", "r1", "--yes")
    kept = trust_file(home, "root-1.cose")
    first = kept.read_bytes()
    digitruck("trust", "sign", "root-1.cose", "--key", "r2", "--yes")
    (home / "by-two.cose").write_bytes(kept.read_bytes())
    kept.write_bytes(first)
    (home / "by-one.cose").write_bytes(first)
    digitruck("trust", "push", str(home / "by-one.cose"), str(home / "by-two.cose"))
    assert digitruck("trust", "show", "--json").json[0]["complete"]


def test_the_gateways_key_is_asked_when_it_is_not_named(trusted: RunningGateway, home: Path) -> None:
    root = read_signed(trust_file(home, "root-1.cose")).document
    assert isinstance(root, Root)
    assert root.gateway.keys == (FRESHNESS.public,)


def test_delegation_says_what_changes_and_keeps_the_rest(
    trusted: RunningGateway, digitruck: Digitruck, home: Path
) -> None:
    digitruck("key", "new", "juma", "--role", "operator")
    made = digitruck("trust", "delegate", "--operator", "kenya=juma,asha:2", "--key", "r1", "--key", "r2", "--yes")
    assert "Configuration and rollouts for group kenya: signed by 2 of juma" in made.out
    assert "All bundles" not in made.out
    digitruck("trust", "push")
    document = read_signed(trust_file(home, "delegation-2.cose")).document
    assert isinstance(document, Delegation)
    assert [each.group for each in document.operators] == ["*", "kenya"]
    assert [each.prefix for each in document.publishers] == [""]
    gone = digitruck("trust", "delegate", "--without-operator", "kenya", "--key", "r1", "--key", "r2", "--yes")
    assert "group kenya: nobody any more" in gone.out
    digitruck("trust", "push")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("kenya=asha:3", "never come together"),
        ("kenya", "SCOPE=KEY"),
        ("kenya=nobody", "no public key"),
        ("Kenya=asha", "no truck would accept"),
        ("kenya=asha:0", "never come together"),
    ],
)
def test_a_role_that_cannot_work_is_refused(
    trusted: RunningGateway, digitruck: Digitruck, option: str, message: str
) -> None:
    refused = digitruck("trust", "delegate", "--operator", option, "--key", "r1", "--yes", ok=False)
    assert refused.code == 1
    assert message in refused.err


def test_trucks_and_people_are_revoked_by_signature(trusted: RunningGateway, digitruck: Digitruck, home: Path) -> None:
    digitruck("key", "new", "juma", "--role", "operator")
    keys = ("--key", "r1", "--key", "r2", "--yes")
    digitruck("trust", "delegate", "--operator", "kenya=juma", *keys)
    made = digitruck("trust", "revoke", "--truck", "ke-arrow", "--person", "juma", *keys)
    assert "Truck ke-arrow is revoked" in made.out
    assert "group kenya: nobody any more" in made.out
    document = read_signed(trust_file(home, "delegation-3.cose")).document
    assert isinstance(document, Delegation)
    assert document.revoked == ("ke-arrow",)
    again = digitruck("trust", "revoke", "--allow", "ke-arrow", *keys)
    assert "Truck ke-arrow may enrol again" in again.out
    assert "root key" in digitruck("trust", "revoke", "--person", "r1", *keys, ok=False).err


def test_a_root_key_is_rotated_and_the_delegation_follows(
    trusted: RunningGateway, digitruck: Digitruck, home: Path
) -> None:
    digitruck("key", "new", "r4", "--role", "root")
    keys = ("--key", "r1", "--key", "r2", "--yes")
    made = digitruck("trust", "rotate", "root", "--old", "r3", "--new", "r4", *keys)
    assert "r4" in made.out
    assert "is removed" in made.out
    digitruck("trust", "push")
    trusted_set = TrustedSet(read_signed(trust_file(home, "root-1.cose")).signed)
    trusted_set.update_root(read_signed(trust_file(home, "root-2.cose")).signed)
    delegation = trusted_set.accept_delegation(read_signed(trust_file(home, "delegation-2.cose")).signed, 0)
    assert delegation.operators
    gone = digitruck("trust", "delegate", "--operator", "kenya=asha", "--key", "r3", "--yes", ok=False)
    assert "r3 may not sign this" in gone.err


def test_gateway_and_operator_keys_are_rotated(trusted: RunningGateway, digitruck: Digitruck, home: Path) -> None:
    keys = ("--key", "r1", "--key", "r2", "--yes")
    made = digitruck("trust", "rotate", "gateway", "--old", FRESHNESS.public.hex(), "--new", "ab" * 32, *keys)
    assert "recovery from a theft" in made.out
    digitruck("key", "new", "asha-2", "--role", "operator")
    made = digitruck("trust", "rotate", "operator", "--old", "asha", "--new", "asha-2", *keys)
    assert "What only asha" in made.out
    document = read_signed(trust_file(home, "delegation-2.cose")).document
    assert isinstance(document, Delegation)
    assert (
        "no publisher's key"
        in digitruck("trust", "rotate", "publisher", "--old", "asha", "--new", "asha-2", *keys, ok=False).err
    )


def test_the_root_role_moves_to_other_keys_with_another_size_and_threshold(
    trusted: RunningGateway, digitruck: Digitruck, home: Path
) -> None:
    """Old keys sign once more, new ones agree, then only the new ones count; each step is explained and refusable."""
    for name in ("n1", "n2", "n3", "n4", "n5"):
        digitruck("key", "new", name, "--role", "root")
    olds = [part for name in ("r1", "r2", "r3") for part in ("--old", name)]
    news = [part for name in ("n1", "n2", "n3", "n4", "n5") for part in ("--new", name)]
    change = ("trust", "rotate", "root", *olds, *news, "--threshold", "3", "--key", "r1")
    refused = digitruck(*change, ok=False)
    assert (refused.code, "r3 (" in refused.out, "3 signatures are needed (was 2)" in refused.out) == (1, True, True)
    assert not trust_file(home, "root-2.cose").exists()
    made = digitruck(*change, "--yes", "--json")
    assert [each["signed"] for each in made.json] == [{"root 1": "1/2", "root 2": "0/3"}]
    assert "digitruck trust renew" in made.err
    for name in ("r2", "n1", "n2"):
        digitruck("trust", "sign", "root-2.cose", "--key", name, "--yes")
    assert "not complete" in digitruck("trust", "push", ok=False).err
    assert digitruck("trust", "sign", "root-2.cose", "--key", "n3", "--yes", "--json").json[0]["complete"]
    # The role table is the old root's: neither is pushed before the new keys have signed it.
    assert "delegation-1.cose is not complete" in digitruck("trust", "push", ok=False).err
    digitruck("trust", "renew", "--key", "n3", "--key", "n4", "--yes")
    assert "may not sign" in digitruck("trust", "sign", "delegation-2.cose", "--key", "r1", "--yes", ok=False).err
    digitruck("trust", "sign", "delegation-2.cose", "--key", "n5", "--yes")
    assert len(digitruck("trust", "push", "--json").json) == 3
    believed = TrustedSet(read_signed(trust_file(home, "root-1.cose")).signed)
    root = believed.update_root(read_signed(trust_file(home, "root-2.cose")).signed)
    assert (root.root.threshold, len(root.root.keys)) == (3, 5)
    assert believed.accept_delegation(read_signed(trust_file(home, "delegation-2.cose")).signed, 0).operators
    status = digitruck("trust", "status", "--json").json
    assert (status["gateway"]["root"]["version"], status["warnings"]) == (2, [])


def test_an_exchange_key_is_named_by_its_number(trusted: RunningGateway, digitruck: Digitruck, home: Path) -> None:
    keys = ("--key", "r1", "--key", "r2", "--yes")
    made = digitruck("trust", "rotate", "exchange", "--new", f"1:{'ab' * 32}", *keys)
    assert f"EDHOC key 1 of the gateway is believed: {'ab' * 32}" in made.out
    root = read_signed(trust_file(home, "root-2.cose")).document
    assert isinstance(root, Root)
    assert root.exchange == (ExchangeKey(1, b"\xab" * 32),)
    digitruck("trust", "push")
    assert "not N:HEX" in digitruck("trust", "rotate", "exchange", "--new", "ab" * 32, *keys, ok=False).err


def test_a_second_freshness_key_is_added_before_the_first_goes(
    trusted: RunningGateway, digitruck: Digitruck, home: Path
) -> None:
    keys = ("--key", "r1", "--key", "r2", "--yes")
    digitruck("trust", "rotate", "gateway", "--new", "ab" * 32, *keys)
    root = read_signed(trust_file(home, "root-2.cose")).document
    assert isinstance(root, Root)
    assert root.gateway.keys == (FRESHNESS.public, b"\xab" * 32)


def test_what_is_there_already_is_renewed_before_it_expires(
    trusted: RunningGateway, digitruck: Digitruck, home: Path
) -> None:
    before = read_signed(trust_file(home, "delegation-1.cose")).document
    made = digitruck("trust", "renew", "--valid", "900d", "--key", "r1", "--key", "r2", "--yes")
    assert "Who may sign what stays as it is" in made.out
    after = read_signed(trust_file(home, "delegation-2.cose")).document
    assert isinstance(before, Delegation)
    assert isinstance(after, Delegation)
    assert (after.operators, after.publishers) == (before.operators, before.publishers)
    assert after.expires_s > before.expires_s
    digitruck("trust", "renew", "root", "--key", "r1", "--key", "r3", "--yes")
    assert [each["complete"] for each in digitruck("trust", "show", "--json").json] == [True] * 4
    digitruck("trust", "push")


def test_what_only_a_removed_key_signed_is_signed_again_by_another(
    trusted: RunningGateway, digitruck: Digitruck, home: Path
) -> None:
    async def enrol() -> None:
        await add_truck(trusted.fleet)

    trusted.run(enrol())
    digitruck("config", "set", "ke-arrow", "batch_age_s=600", "--key", "asha", "--yes")
    digitruck("key", "new", "asha-2", "--role", "operator")
    digitruck("trust", "rotate", "operator", "--old", "asha", "--new", "asha-2", "--key", "r1", "--key", "r2", "--yes")
    assert "trust resign" in digitruck("trust", "push").err
    assert "wait for new signatures" in digitruck("trust", "status").out
    assert digitruck("trust", "resign", "--key", "asha-2", ok=False).code == 1
    shown = digitruck("trust", "resign", "--key", "asha-2", "--yes")
    assert "batch_age_s = 600" in shown.out
    assert "version 2: the gateway has it" in shown.out
    assert "nothing to sign again" in digitruck("trust", "resign", "--key", "asha-2", "--yes").err
    refused = digitruck("config", "set", "ke-arrow", "batch_age_s=700", "--key", "asha", "--yes", ok=False)
    assert "signature" in refused.err


def test_status_says_which_side_lacks_what(trusted: RunningGateway, digitruck: Digitruck, home: Path) -> None:
    keys = ("--key", "r1", "--key", "r2", "--yes")
    digitruck("trust", "revoke", "--truck", "ke-arrow", *keys)
    assert "delegation 2 is here and not at the gateway: digitruck trust push" in digitruck("trust", "status").out
    digitruck("trust", "push")
    assert "!" not in digitruck("trust", "status").out
    trust_file(home, "delegation-2.cose").unlink()
    assert "delegation 2 of the gateway is not here: digitruck trust fetch" in digitruck("trust", "status").out


def test_another_operators_machine_fetches_what_follows_from_the_named_root(
    trusted: RunningGateway, digitruck: Digitruck, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trusted.run(trusted.fleet.documents())
    name = next(each.digest.hex() for each in first if each.kind.name == "ROOT")
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "other"))
    wrong = digitruck("trust", "fetch", "--root", "00" * 32, ok=False)
    assert "not the one you named" in wrong.err
    assert "nobody is here to confirm" in digitruck("trust", "fetch", ok=False).err
    digitruck("trust", "fetch", "--root", name)
    shown = digitruck("trust", "show", "--json").json
    assert [(each["document"], each["complete"]) for each in shown] == [("root", True), ("delegation", True)]


def test_a_false_signature_in_a_file_is_named(digitruck: Digitruck, roots: tuple[str, ...], home: Path) -> None:
    digitruck("trust", "init", *roots, "--key", "r1", "--yes")
    path = trust_file(home, "root-1.cose")
    signed = bytearray(path.read_bytes())
    signed[-1] ^= 1
    path.write_bytes(signed)
    assert "false signature" in digitruck("trust", "show", "root-1.cose", ok=False).err
    path.write_bytes(b"\x00")
    assert "not a signed document" in digitruck("trust", "show", "root-1.cose", ok=False).err


def test_who_may_not_put_trust_documents_is_told_so(
    digitruck: Digitruck, roots: tuple[str, ...], gateway: RunningGateway
) -> None:
    digitruck("login", gateway.url, "--token", TOKENS[Role.VIEWER])
    digitruck("trust", "init", *roots, "--key", "r1", "--key", "r2", "--yes")
    refused = digitruck("trust", "push", ok=False)
    assert refused.code == 1
    assert "role" in refused.err
