"""Backups are for recipients or a passphrase; whoever else holds them, or changes them, gets nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import agekeys
from gateway.agekeys import BackupKeyError, Lock, Unlock, new_identity, read_passphrase

PLAIN = b"the database " * 20_000
PASSPHRASE = "correct horse battery"


def sealed(lock: Lock) -> bytes:
    target = io.BytesIO()
    lock.encrypt(io.BytesIO(PLAIN), target)
    assert PLAIN[:100] not in target.getvalue()
    return target.getvalue()


def opened(data: bytes, unlock: Unlock) -> bytes:
    target = io.BytesIO()
    unlock.decrypt(io.BytesIO(data), target)
    return target.getvalue()


@pytest.fixture
def mine(tmp_path: Path) -> tuple[Path, str]:
    data, recipient = new_identity(None)
    (tmp_path / "mine.key").write_bytes(data)
    return tmp_path / "mine.key", recipient


def test_each_of_several_recipients_opens_it_and_nobody_else(mine: tuple[Path, str], tmp_path: Path) -> None:
    data, other = new_identity(None)
    (tmp_path / "other.key").write_bytes(data)
    (tmp_path / "third.key").write_bytes(new_identity(None)[0])
    secret = sealed(Lock((mine[1], other)))
    for name in ("mine.key", "other.key"):
        assert opened(secret, Unlock((tmp_path / name,))) == PLAIN
    with pytest.raises(BackupKeyError, match="another key"):
        opened(secret, Unlock((tmp_path / "third.key",)))
    with pytest.raises(BackupKeyError, match="--identity"):
        opened(secret, Unlock())


def test_an_ssh_key_is_a_recipient_too(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    form = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    (tmp_path / "key").write_bytes(key.private_bytes(*form))
    line = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    public = key.public_key().public_bytes(*line).decode()
    assert opened(sealed(Lock((public,))), Unlock((tmp_path / "key",))) == PLAIN


def test_a_passphrase_opens_it_and_another_does_not() -> None:
    secret = sealed(Lock(passphrase=PASSPHRASE))
    assert opened(secret, Unlock(ask=lambda of: PASSPHRASE)) == PLAIN
    with pytest.raises(BackupKeyError, match="does not open"):
        opened(secret, Unlock(passphrase=PASSPHRASE + "?"))
    with pytest.raises(BackupKeyError, match="--passphrase-file"):
        opened(secret, Unlock())


def test_a_key_of_its_own_may_have_a_passphrase(tmp_path: Path) -> None:
    data, recipient = new_identity(PASSPHRASE)
    (tmp_path / "locked.key").write_bytes(data)
    asked: list[str] = []
    unlock = Unlock((tmp_path / "locked.key",), ask=lambda of: asked.append(of) or PASSPHRASE)
    assert opened(sealed(Lock((recipient,))), unlock) == PLAIN
    assert "locked.key" in asked[0]


@pytest.mark.parametrize("change", ["cut", "flip", "head", "empty"])
def test_what_was_changed_or_cut_off_does_not_open(mine: tuple[Path, str], change: str) -> None:
    data = bytearray(sealed(Lock((mine[1],))))
    if change == "cut":
        data = data[: -(1 << 16)]
    elif change == "flip":
        data[-1] ^= 1
    elif change == "head":
        data[60] ^= 1
    else:
        data = data[:100]
    with pytest.raises((BackupKeyError, OSError)):
        opened(bytes(data), Unlock((mine[0],)))


def test_whom_it_is_for_has_to_be_said_and_to_be_somebody() -> None:
    for recipients, passphrase in (
        ((), None),
        (("age1x",), PASSPHRASE),
        (("age1nobody",), None),
        (("ssh-rsa x",), None),
    ):
        with pytest.raises(BackupKeyError):
            Lock(recipients, passphrase)


def test_what_is_no_identity_is_said_to_be_none(mine: tuple[Path, str], tmp_path: Path) -> None:
    secret = sealed(Lock((mine[1],)))
    for content in (
        b"",
        b"# only a comment\n",
        b"AGE-SECRET-KEY-1JUNK\n",
        b"\xff\xfe",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
    ):
        (tmp_path / "junk.key").write_bytes(content)
        with pytest.raises(BackupKeyError, match=r"junk\.key"):
            opened(secret, Unlock((tmp_path / "junk.key",)))


def test_a_passphrase_is_the_first_line_and_not_short(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(PASSPHRASE + "\nmore\n")
    assert read_passphrase(tmp_path / "file") == PASSPHRASE
    (tmp_path / "file").write_text("short\n")
    with pytest.raises(BackupKeyError, match="12 characters"):
        read_passphrase(tmp_path / "file")


def test_what_is_too_large_for_a_passphrase_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agekeys, "PASSPHRASE_BYTES_MAX", 1_000)

    class Chunks(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(600)

    with pytest.raises(BackupKeyError, match="backup-key"):
        Lock(passphrase=PASSPHRASE).encrypt(Chunks(PLAIN), io.BytesIO())


def test_secrets_do_not_show_in_a_traceback() -> None:
    assert PASSPHRASE not in repr(Lock(passphrase=PASSPHRASE)) + repr(Unlock(passphrase=PASSPHRASE))
