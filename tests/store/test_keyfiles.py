"""Keys are read from files for their owner only, or from credentials; what is wrong says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog

from store.keyfiles import KeyMissingError, KeyUnreadableError, has_key, read_key

KEY = bytes(range(32))
NAME = "digitruck-edge.signing"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "signing.key"
    path.write_bytes(KEY)
    path.chmod(0o600)
    return path


@pytest.fixture
def handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of credentials, as the service manager makes it."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


def test_a_key_file_of_its_owner_is_read(path: Path) -> None:
    assert read_key(path, NAME, 32) == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o610])
def test_a_file_that_others_can_open_is_closed_to_them_and_that_is_said(path: Path, mode: int) -> None:
    path.chmod(mode)
    with structlog.testing.capture_logs() as logs:
        assert read_key(path, NAME, 32) == KEY
    assert path.stat().st_mode & 0o777 == 0o600
    assert [(each["event"], each["mode"]) for each in logs] == [("key.mode_repaired", f"{mode:03o}")]
    assert KEY.hex() not in str(logs)
    with structlog.testing.capture_logs() as logs:
        read_key(path, NAME, 32)
    assert logs == []


def test_a_mode_that_cannot_be_repaired_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.chmod(0o644)

    def refuse(descriptor: int, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    with pytest.raises(KeyUnreadableError, match="chmod 600"):
        read_key(path, NAME, 32)


def test_a_file_of_another_user_is_refused_unless_root_reads_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(KeyUnreadableError, match="chown"):
        read_key(path, NAME, 32)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert read_key(path, NAME, 32) == KEY


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyUnreadableError, match="regular file"):
        read_key(tmp_path / "pipe", NAME, 32)


@pytest.mark.parametrize("data", [b"", KEY[:-1], KEY + b"\n"])
def test_a_key_of_another_size_is_damaged(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(KeyUnreadableError, match="damaged"):
        read_key(path, NAME, 32)


def test_no_key_at_all_is_told_apart(tmp_path: Path, handed_over: Path) -> None:
    assert not has_key(tmp_path / "signing.key", NAME)
    with pytest.raises(KeyMissingError):
        read_key(tmp_path / "signing.key", NAME, 32)


def test_a_credential_stands_in_for_a_file_that_is_gone(path: Path, handed_over: Path) -> None:
    (handed_over / NAME).write_bytes(bytes(32))
    assert read_key(path, NAME, 32) == KEY
    path.unlink()
    assert has_key(path, NAME)
    assert read_key(path, NAME, 32) == bytes(32)
    (handed_over / NAME).write_bytes(b"short")
    with pytest.raises(KeyUnreadableError, match="damaged"):
        read_key(path, NAME, 32)
