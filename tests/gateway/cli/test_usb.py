"""`digitruck usb`: sticks written, gone on with, brought back and revoked from the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.ownkeys import OwnKeys
from protocol.documents import Stick, parse_document
from store.stickfolder import StickFolder
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import EPOCH, Truck, add_truck, carried
from tests.gateway.running import RunningGateway

LESSON = b"l" * 300_000


@pytest.fixture
def truck(trusted: RunningGateway, digitruck: Digitruck, home: Path) -> Truck:
    """An enrolled truck that should have a bundle."""
    (home / "maths").mkdir()
    (home / "maths" / "index.html").write_bytes(LESSON)
    digitruck("bundle", "push", "maths", "--name", "maths", "--version", "1", "--key", "library")
    truck = trusted.run(add_truck(trusted.fleet))
    digitruck("rollout", "create", "maths", "--trucks", "ke-arrow", "--key", "asha", "--yes")
    return truck


def files(stick: Path) -> dict[str, int]:
    return {str(path.relative_to(stick)): path.stat().st_size for path in stick.rglob("*") if path.is_file()}


def test_an_export_that_is_repeated_writes_nothing_twice(truck: Truck, digitruck: Digitruck, home: Path) -> None:
    stick = home / "stick"
    stick.mkdir()
    first = digitruck("usb", "export", "stick", "--trucks", "ke-arrow", "--json").json
    before = files(stick)
    assert first["written_bytes"] == first["bytes"] > len(LESSON)
    again = digitruck("usb", "export", "stick", "--group", "kenya", "--json").json
    assert (again["stick"], again["written_bytes"]) == (first["stick"], 0)
    assert files(stick) == before
    other = digitruck("usb", "export", "stick", "--trucks", "ke-arrow", "--new", "--json").json
    assert other["stick"] != first["stick"]
    assert {each["stick"] for each in digitruck("usb", "list", "--json").json} == {first["stick"], other["stick"]}


def test_an_export_that_broke_off_goes_on(truck: Truck, digitruck: Digitruck, home: Path) -> None:
    stick = home / "stick"
    stick.mkdir()
    digitruck("usb", "export", "stick", "--trucks", "ke-arrow")
    (lesson,) = [path for path in stick.rglob("*") if path.is_file() and path.stat().st_size == len(LESSON)]
    whole = lesson.read_bytes()
    lesson.unlink()
    lesson.with_name(f".new-{lesson.name}").write_bytes(whole[:100])
    ran = digitruck("usb", "export", "stick", "--trucks", "ke-arrow", "--json").json
    assert ran["written_bytes"] == len(LESSON)
    assert lesson.read_bytes() == whole


def test_what_is_left_of_another_export_makes_room(truck: Truck, digitruck: Digitruck, home: Path) -> None:
    stick = home / "stick"
    (stick / "digitruck" / "objects" / "ab").mkdir(parents=True)
    left = stick / "digitruck" / "objects" / "ab" / ("ab" * 32)
    left.write_bytes(b"x")
    holiday = stick / "holiday.jpg"
    holiday.write_bytes(b"not ours")
    digitruck("usb", "export", "stick", "--trucks", "ke-arrow")
    assert not left.exists()
    assert holiday.exists()


def test_a_stick_without_room_says_how_much_is_wanted(
    truck: Truck, digitruck: Digitruck, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "stick").mkdir()
    monkeypatch.setattr(StickFolder, "free_bytes", lambda self: 10_000)
    ran = digitruck("usb", "export", "stick", "--trucks", "ke-arrow", ok=False)
    assert ran.code == 1
    assert "has room for 10000 bytes" in ran.err.splitlines()[-1]


def test_what_trucks_gave_is_brought_in_once_and_goes_from_the_stick(
    truck: Truck, trusted: RunningGateway, digitruck: Digitruck, home: Path
) -> None:
    up = home / "stick" / "digitruck" / "up" / "ke-arrow"
    up.mkdir(parents=True)
    keys = OwnKeys(home / "gateway" / "keys")
    (up / f"{EPOCH:016x}-1-2").write_bytes(carried("ke-arrow", keys, names=("a", "b")))
    (up / f"{EPOCH:016x}-3-3").write_bytes(b"\x01\x00damaged")
    (up / "something else").write_bytes(b"not ours")
    ran = digitruck("usb", "import", "stick", "--json", ok=False)
    assert ran.code == 1
    assert ran.json["files"] == [{"truck": "ke-arrow", "new": 2, "known": 0, "refused": 0}]
    assert "the truck still has it" in ran.err
    assert sorted(path.name for path in up.iterdir()) == [f"{EPOCH:016x}-3-3", "something else"]
    (up / f"{EPOCH:016x}-3-3").unlink()
    assert digitruck("usb", "import", "stick").code == 0
    assert len(trusted.run(trusted.fleet.events(truck="ke-arrow", limit=10))) == 2


def test_a_revoked_stick_is_neither_written_nor_brought_in(truck: Truck, digitruck: Digitruck, home: Path) -> None:
    stick = home / "stick"
    stick.mkdir()
    made = digitruck("usb", "export", "stick", "--trucks", "ke-arrow", "--json").json["stick"]
    assert "revoked" in digitruck("usb", "revoke", made).out
    ran = digitruck("usb", "export", "stick", "--trucks", "ke-arrow", ok=False)
    assert (ran.code, "--new" in ran.err) == (1, True)
    (stick / "digitruck" / "up" / "ke-arrow").mkdir(parents=True)
    carried_file = stick / "digitruck" / "up" / "ke-arrow" / f"{EPOCH:016x}-1-1"
    carried_file.write_bytes(carried("ke-arrow", OwnKeys(home / "gateway" / "keys")))
    ran = digitruck("usb", "import", "stick", ok=False)
    assert (ran.code, "revoked" in ran.err) == (1, True)
    assert carried_file.exists()
    assert digitruck("usb", "export", "stick", "--trucks", "ke-arrow", "--new").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("export", "nowhere", "--trucks", "ke-arrow"), "is no folder"),
        (("export", ".", "--trucks", "nobody"), "no truck nobody"),
        (("import", "."), "not written by digitruck"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    truck: Truck, digitruck: Digitruck, arguments: tuple[str, ...], said: str
) -> None:
    ran = digitruck("usb", *arguments, ok=False)
    assert ran.code == 1
    assert said in ran.err.splitlines()[-1]


def test_trucks_or_a_group_must_be_named(truck: Truck, digitruck: Digitruck, home: Path) -> None:
    assert digitruck("usb", "export", ".", ok=False).code == 2


def test_the_signed_part_is_for_the_trucks_that_were_named(truck: Truck, digitruck: Digitruck, home: Path) -> None:
    (home / "stick").mkdir()
    digitruck("usb", "export", "stick", "--trucks", "ke-arrow", "--valid", "2d")
    signed = (home / "stick" / "digitruck" / "stick.cose").read_bytes()
    document, _ = parse_document(signed, Stick)
    assert [each.truck for each in document.trucks] == ["ke-arrow"]
    assert document.expires_s - document.issued_s == 2 * 86_400
    shutil.rmtree(home / "stick")
