"""Publishing a file: the old bytes or the new ones, never a part, never a leftover; and the lock of a database."""

import os
from pathlib import Path

import pytest

from store.errors import StoreInUseError
from store.files import publish
from store.lock import FileLock


def test_a_published_file_is_private_and_replaces_the_old_one(tmp_path: Path) -> None:
    for data in (b"one", b"two"):
        publish(tmp_path / "key", data)
        assert (tmp_path / "key").read_bytes() == data
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["key"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_leftover(tmp_path: Path, monkeypatch, step: str) -> None:
    publish(tmp_path / "key", b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail)
        with pytest.raises(OSError):
            publish(tmp_path / "key", b"new")
    assert (tmp_path / "key").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["key"]


def test_it_is_durable_in_this_order(tmp_path: Path, monkeypatch) -> None:
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(file: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{file}") else "file")
        real_fsync(file)

    def replace(*names: object) -> None:
        steps.append("rename")
        real_replace(*names)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    publish(tmp_path / "key", b"data")
    assert steps == ["file", "rename", "folder"]


def test_a_lock_is_held_by_one_and_freed_by_its_holder(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "state.db.lock"), FileLock(tmp_path / "state.db.lock")
    first.take()
    with pytest.raises(StoreInUseError, match="holds state"):
        second.take()
    first.release()
    first.release()
    second.take()
    second.release()
