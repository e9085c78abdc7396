"""Keys are made once and stay; the enrolment is whole or absent; damage says what to do."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from edge.identity import Enrolment, NotEnrolledError, load_identity, make_keys, save_enrolment
from protocol.errors import LocalError, MalformedError
from protocol.wire import WireArray

ENROLMENT = Enrolment("ke-arrow", "kenya", ("192.0.2.1:5683", "[2001:db8::1]:5683"), b"k" * 32, b"r" * 32)


def test_keys_are_made_once_and_a_repeated_join_keeps_them(tmp_path: Path) -> None:
    first, again = make_keys(tmp_path / "identity"), make_keys(tmp_path / "identity")
    assert first.signing.public == again.signing.public
    assert first.edhoc == again.edhoc
    assert make_keys(tmp_path / "other").signing.public != first.signing.public


def test_only_the_daemon_can_read_the_keys(tmp_path: Path) -> None:
    make_keys(tmp_path / "identity")
    save_enrolment(tmp_path / "identity", ENROLMENT)
    assert stat.S_IMODE((tmp_path / "identity").stat().st_mode) == 0o700
    for path in (tmp_path / "identity").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    keys = make_keys(tmp_path)
    save_enrolment(tmp_path, ENROLMENT)
    loaded, enrolment = load_identity(tmp_path)
    assert enrolment == ENROLMENT
    assert loaded.signing.public == keys.signing.public


def test_a_truck_that_has_not_joined_is_told_so(tmp_path: Path) -> None:
    make_keys(tmp_path)
    with pytest.raises(NotEnrolledError, match="digitruck-edge join CODE"):
        load_identity(tmp_path)


def test_keys_that_are_gone_are_told_so(tmp_path: Path) -> None:
    make_keys(tmp_path)
    save_enrolment(tmp_path, ENROLMENT)
    (tmp_path / "edhoc.key").unlink()
    with pytest.raises(NotEnrolledError, match="no keys"):
        load_identity(tmp_path)


@pytest.mark.parametrize("name", ["signing.key", "edhoc.key"])
def test_a_damaged_key_names_the_next_step(tmp_path: Path, name: str) -> None:
    make_keys(tmp_path)
    save_enrolment(tmp_path, ENROLMENT)
    (tmp_path / name).write_bytes(b"short")
    with pytest.raises(LocalError, match="ask for a new code"):
        load_identity(tmp_path)
    with pytest.raises(LocalError, match="ask for a new code"):
        make_keys(tmp_path)


def test_a_damaged_enrolment_names_the_next_step(tmp_path: Path) -> None:
    make_keys(tmp_path)
    (tmp_path / "enrolment.cbor").write_bytes(ENROLMENT.encode()[:-1])
    with pytest.raises(LocalError, match="join CODE` again"):
        load_identity(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"truck": "../etc"},
        {"addresses": ()},
        {"addresses": ("nowhere",)},
        {"gateway_key": b"short"},
        {"root": b""},
    ],
)
def test_an_enrolment_that_does_not_hold_is_not_read(changed: dict[str, object]) -> None:
    class Loose(WireArray, frozen=True):
        truck: str = "ke-arrow"
        group: str = "kenya"
        addresses: tuple[str, ...] = ("192.0.2.1:5683",)
        gateway_key: bytes = b"k" * 32
        root: bytes = b"r" * 32

    assert Enrolment.decode(Loose().encode()).truck == "ke-arrow"
    with pytest.raises(MalformedError):
        Enrolment.decode(Loose(**changed).encode())  # type: ignore[arg-type]


def test_keys_do_not_show_in_a_traceback(tmp_path: Path) -> None:
    keys = make_keys(tmp_path)
    for secret in (keys.signing.seed, keys.edhoc.private):
        assert secret.hex() not in repr(keys)
        assert repr(secret)[2:-1] not in repr(keys)
