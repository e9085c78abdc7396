"""Small private files: whole or not at all, and nobody else's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gateway.cli.files import write_private


def test_a_file_is_0600_and_replaces_the_one_before(home: Path) -> None:
    path = home / "deep" / "er" / "file"
    for data in (b"one", b"two"):
        write_private(path, data)
        assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_failed_write_leaves_the_old_file_and_no_litter(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home / "folder" / "file"
    write_private(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_link_in_its_place_is_replaced_and_not_followed(home: Path) -> None:
    (home / "target").write_bytes(b"theirs")
    (home / "file").symlink_to(home / "target")
    write_private(home / "file", b"mine")
    assert (home / "target").read_bytes() == b"theirs"
    assert not (home / "file").is_symlink()
