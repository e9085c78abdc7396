"""Keys of people: private files stay private, damage and look-alikes are refused with a next step."""

import os
import stat
from pathlib import Path

import pytest

from gateway.keystore import KeyRole, Keystore, KeystoreError, PublicLine, read_public_line
from protocol import cose
from protocol.errors import MalformedError

SEED = bytes(range(32))


@pytest.fixture
def keystore(tmp_path: Path) -> Keystore:
    return Keystore(tmp_path / "keys")


def test_a_key_comes_back_as_it_was_made(keystore: Keystore) -> None:
    made = keystore.new("asha", KeyRole.OPERATOR, SEED)
    loaded = keystore.load("asha")
    assert (loaded.name, loaded.role) == ("asha", KeyRole.OPERATOR)
    assert loaded.signing.public == made.signing.public == cose.SigningKey(SEED).public


def test_private_file_is_0600_from_the_start_whatever_the_umask(keystore: Keystore) -> None:
    before = os.umask(0)
    try:
        keystore.new("asha", KeyRole.ROOT, SEED)
    finally:
        os.umask(before)
    assert stat.S_IMODE((keystore.folder / "asha.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(keystore.folder.stat().st_mode) == 0o700


def test_public_file_holds_nothing_private(keystore: Keystore) -> None:
    keystore.new("asha", KeyRole.PUBLISHER, SEED)
    text = (keystore.folder / "asha.pub").read_text()
    assert SEED.hex() not in text
    assert read_public_line(text) == PublicLine("asha", "publisher", cose.SigningKey(SEED).public)


def test_a_taken_name_is_refused_and_the_key_kept(keystore: Keystore) -> None:
    keystore.new("asha", KeyRole.ROOT, SEED)
    with pytest.raises(KeystoreError, match="choose another name"):
        keystore.new("asha", KeyRole.ROOT, bytes(32))
    (keystore.folder / "asha.pub").unlink()
    with pytest.raises(KeystoreError, match="choose another name"):
        keystore.new("asha", KeyRole.ROOT, bytes(32))
    assert keystore.load("asha").signing.seed == SEED


@pytest.mark.parametrize("name", ["", "../asha", "Asha", "a b", "-a", "a" * 32, "a\n", ".."])
def test_odd_names_are_refused(keystore: Keystore, name: str) -> None:
    with pytest.raises(KeystoreError, match="not a key name"):
        keystore.new(name, KeyRole.ROOT, SEED)
    assert not keystore.folder.exists()


def test_a_key_that_others_can_read_is_refused(keystore: Keystore) -> None:
    keystore.new("asha", KeyRole.ROOT, SEED)
    (keystore.folder / "asha.key").chmod(0o640)
    with pytest.raises(KeystoreError, match="chmod 600"):
        keystore.load("asha")


def test_a_link_in_the_place_of_a_key_is_refused(keystore: Keystore, tmp_path: Path) -> None:
    keystore.new("asha", KeyRole.ROOT, SEED)
    (keystore.folder / "link.key").symlink_to(keystore.folder / "asha.key")
    with pytest.raises(KeystoreError, match=r"link\.key cannot be read"):
        keystore.load("link")


def test_a_fifo_in_the_place_of_a_key_does_not_hang(keystore: Keystore) -> None:
    keystore.new("asha", KeyRole.ROOT, SEED)
    os.mkfifo(keystore.folder / "fifo.key", 0o600)
    with pytest.raises(KeystoreError, match="not a regular file"):
        keystore.load("fifo")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace(SEED.hex(), bytes(32).hex()),
        lambda text: text.replace(SEED.hex(), SEED.hex()[:-2]),
        lambda text: text.replace("seed", "sead"),
        lambda text: text + 'note = "mine"\n',
        lambda text: text.replace("root", "king"),
        lambda text: "",
        lambda text: "\udcff",
    ],
)
def test_a_damaged_key_is_refused(keystore: Keystore, damage) -> None:  # type: ignore[no-untyped-def]
    keystore.new("asha", KeyRole.ROOT, SEED)
    path = keystore.folder / "asha.key"
    path.write_bytes(damage(path.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(KeystoreError, match="damaged"):
        keystore.load("asha")


def test_a_missing_key_names_those_that_are_there(keystore: Keystore) -> None:
    keystore.new("asha", KeyRole.ROOT, SEED)
    with pytest.raises(KeystoreError, match="there are: asha"):
        keystore.load("juma")


def test_another_persons_line_is_found_by_name_file_and_digits(keystore: Keystore, tmp_path: Path) -> None:
    juma = PublicLine("juma", "root", cose.SigningKey(bytes(32)).public)
    (tmp_path / "from-juma.pub").write_text(juma.text())
    assert keystore.public(str(tmp_path / "from-juma.pub")) == juma
    keystore.add(juma)
    assert keystore.public("juma") == juma
    assert keystore.public(juma.public.hex()) == juma
    assert keystore.people() == {juma.public: juma}
    assert keystore.mine() == []


def test_a_name_never_changes_whose_key_it_is(keystore: Keystore) -> None:
    keystore.new("asha", KeyRole.ROOT, SEED)
    own = keystore.public("asha")
    keystore.add(own)
    with pytest.raises(KeystoreError, match="another key"):
        keystore.add(PublicLine("asha", "root", cose.SigningKey(bytes(32)).public))
    assert keystore.public("asha") == own


@pytest.mark.parametrize(
    "text", ["", "digitruck-key root asha", "digitruck-key root asha 00", "x root asha " + "0" * 64]
)
def test_a_malformed_public_line_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        read_public_line(text)


def test_an_unreadable_public_line_of_others_hides_no_other(keystore: Keystore) -> None:
    keystore.new("asha", KeyRole.ROOT, SEED)
    (keystore.folder / "bad.pub").write_bytes(b"\xff\xfe")
    assert [line.name for line in keystore.people().values()] == ["asha"]
