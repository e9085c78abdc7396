"""An older copy, a copied folder, other hardware, a deleted file: each is noticed and starts a new epoch."""

import shutil
from pathlib import Path

import pytest

from store import identity, incidents
from store.database import Database, open_database
from store.schema import STATE


def names(database: Database) -> list[str]:
    return [each.name for each in incidents.unreported(database, 100)]


def test_a_database_restored_from_an_older_copy_starts_a_new_epoch(opened, tmp_path: Path) -> None:
    first = opened()
    first.close()
    backup = (tmp_path / "state.db").read_bytes()
    second = opened()
    epoch = second.epoch
    second.close()
    (tmp_path / "state.db").write_bytes(backup)
    third = opened()
    assert third.restored
    assert third.epoch != epoch
    assert "store.restored" in names(third)


def test_a_copied_folder_starts_a_new_epoch(opened, tmp_path: Path) -> None:
    first = opened()
    epoch = first.epoch
    first.close()
    shutil.copytree(tmp_path, tmp_path / "copy")
    copy = open_database(tmp_path / "copy" / "state.db", schema=STATE, share_bytes=8 << 20)
    assert copy.restored
    assert copy.epoch != epoch
    copy.close()


def test_a_disk_moved_to_other_hardware_starts_a_new_epoch(opened) -> None:
    first = opened(host=b"serial-1")
    first.close()
    same = opened(host=b"serial-1")
    assert not same.restored
    same.close()
    assert opened(host=b"serial-2").restored


def test_a_deleted_database_is_a_new_epoch_and_said_so(opened, tmp_path: Path) -> None:
    first = opened()
    epoch = first.epoch
    first.close()
    (tmp_path / "state.db").unlink()
    second = opened()
    assert second.recreated
    assert not second.restored
    assert second.epoch != epoch
    assert "store.recreated" in names(second)


def test_a_cut_between_the_file_and_the_note_of_it_is_no_copy(opened, monkeypatch) -> None:
    first = opened()
    epoch = first.epoch
    first.crash()
    real = identity.publish

    def publish_and_die(path: Path, data: bytes) -> None:
        real(path, data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(identity, "publish", publish_and_die)
        with pytest.raises(KeyboardInterrupt):
            opened()
    second = opened()
    assert (second.restored, second.epoch) == (False, epoch)


def test_a_cut_before_the_first_file_is_no_copy(opened, monkeypatch) -> None:
    def die(_path: Path, _data: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(identity, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            opened()
    second = opened()
    assert not second.restored
    assert len(second.rows("SELECT epoch FROM epochs")) == 1
