"""Keys on the command line: made here, shown without their private half, exchanged by their public line."""

from __future__ import annotations

import stat
from pathlib import Path

from gateway.keystore import Keystore
from tests.gateway.cli.conftest import Digitruck


def test_a_key_is_made_0600_and_only_its_public_half_is_printed(digitruck: Digitruck, home: Path) -> None:
    made = digitruck("key", "new", "asha", "--role", "operator")
    folder = home / "data" / "digitruck" / "keys"
    assert stat.S_IMODE((folder / "asha.key").stat().st_mode) == 0o600
    seed = Keystore(folder).load("asha").signing.seed.hex()
    shown = made.out + digitruck("key", "show").out + digitruck("key", "show", "asha").out
    shown += digitruck("key", "show", "--json").out
    assert seed not in shown
    assert "digitruck-key operator asha " in made.out


def test_two_keys_are_never_alike(digitruck: Digitruck) -> None:
    digitruck("key", "new", "a", "--role", "root")
    digitruck("key", "new", "b", "--role", "root")
    one, two = digitruck("key", "show", "--json").json
    assert one["public"] != two["public"]


def test_another_persons_key_is_added_and_told_apart(digitruck: Digitruck, home: Path) -> None:
    digitruck("key", "new", "asha", "--role", "operator")
    (home / "juma.pub").write_text("digitruck-key root juma " + "ab" * 32 + "\n")
    added = digitruck("key", "add", "juma.pub")
    assert "over the phone" in added.out
    assert [(each["name"], each["mine"]) for each in digitruck("key", "show", "--json").json] == [
        ("asha", True),
        ("juma", False),
    ]


def test_a_file_that_is_no_public_key_is_refused(digitruck: Digitruck, home: Path) -> None:
    (home / "x.pub").write_bytes(b"\xff\x00")
    ran = digitruck("key", "add", "x.pub", ok=False)
    assert (ran.code, "digitruck-key ROLE NAME HEX" in ran.err) == (1, True)


def test_a_bad_name_and_a_taken_one_are_refused(digitruck: Digitruck) -> None:
    assert digitruck("key", "new", "../x", "--role", "root", ok=False).code == 1
    digitruck("key", "new", "asha", "--role", "root")
    assert "already there" in digitruck("key", "new", "asha", "--role", "root", ok=False).err
