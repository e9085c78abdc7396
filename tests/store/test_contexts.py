"""OSCORE contexts: numbers durable before use, never twice; anything but the last state is dropped."""

import shutil
from pathlib import Path

import pytest

from protocol.oscore import LinkContext, Secrets
from store import incidents
from store.contexts import ReplayWindow, StoredContext
from store.database import open_reader
from store.errors import ContextGoneError
from store.links import Links, open_links


@pytest.fixture
def links(tmp_path: Path):
    opened: list[Links] = []

    def open_again(folder: Path = tmp_path, **options) -> Links:
        for each in opened:
            each.database.crash()
        opened.append(open_links(folder / "links.db", {}, **options))
        return opened[-1]

    yield open_again
    for each in opened:
        each.database.crash()


def put(links: Links, link: str = "sat", secret: bytes = b"s" * 16) -> StoredContext:
    return links.contexts.put(
        link,
        gateway="coap://gateway.example",
        master_secret=secret,
        master_salt=b"salt",
        sender_id=b"\x01",
        recipient_id=b"",
        created_s=77,
    )


def test_a_context_is_kept_over_a_crash(links) -> None:
    stored = put(links())
    again = links().contexts.get("sat")
    assert again == stored
    assert again is not None
    assert (again.gateway, again.master_secret, again.sender_id, again.created_s) == (
        "coap://gateway.example", b"s" * 16, b"\x01", 77,
    )  # fmt: skip
    assert again.window == ReplayWindow(0, 0)


def test_secrets_are_not_in_a_representation(links) -> None:
    assert "ssss" not in repr(put(links()))


def test_numbers_are_durable_before_they_are_used_and_a_crash_goes_on_beyond_them(links, tmp_path: Path) -> None:
    opened = links()
    stored = put(opened)
    opened.contexts.reserve(stored.id, 256)
    reader = open_reader(tmp_path / "links.db")
    assert reader.execute("SELECT sequence_reserved FROM contexts").fetchone() == (256,)
    reader.close()
    again = links().contexts.get("sat")
    assert again is not None
    assert (again.sequence_reserved, again.window) == (256, None)


def test_the_real_context_never_uses_a_number_twice_over_crashes(links) -> None:
    opened = links()
    put(opened)
    used: list[int] = []
    for _ in range(4):
        opened = links()
        stored = opened.contexts.get("sat")
        assert stored is not None
        contexts, context_id = opened.contexts, stored.id
        context = LinkContext(
            Secrets(stored.master_secret, stored.master_salt, stored.sender_id, stored.recipient_id),
            first_sequence=stored.sequence_reserved,
            reserve=lambda below, contexts=contexts, context_id=context_id: contexts.reserve(context_id, below),
            echo=None,
        )
        used += [context.new_sequence_number() for _ in range(300)]
    assert len(used) == len(set(used)) == 1_200
    assert used == sorted(used)


def test_numbers_never_go_back(links) -> None:
    opened = links()
    stored = put(opened)
    opened.contexts.reserve(stored.id, 256)
    with pytest.raises(ContextGoneError):
        opened.contexts.reserve(stored.id, 255)


def test_a_replaced_or_dropped_context_gives_no_more_numbers(links) -> None:
    opened = links()
    old = put(opened)
    new = put(opened, secret=b"n" * 16)
    with pytest.raises(ContextGoneError):
        opened.contexts.reserve(old.id, 256)
    opened.contexts.reserve(new.id, 256)
    assert opened.contexts.links() == ("sat",)
    assert opened.contexts.drop("sat")
    assert not opened.contexts.drop("sat")
    with pytest.raises(ContextGoneError):
        opened.contexts.reserve(new.id, 512)
    assert put(opened).id not in (old.id, new.id)


def test_a_deleted_secret_is_not_left_in_the_file(links, tmp_path: Path) -> None:
    opened = links()
    put(opened, secret=b"very-secret-1234")
    opened.contexts.drop("sat")
    opened.close()
    assert b"very-secret-1234" not in (tmp_path / "links.db").read_bytes()


def test_an_older_copy_drops_every_context(links, tmp_path: Path) -> None:
    opened = links()
    stored = put(opened)
    put(opened, "lte")
    opened.database.crash()
    shutil.copy(tmp_path / "links.db", tmp_path / "backup")
    # Nothing was opened or closed in between: only the generation in the marks tells.
    opened = links()
    shutil.copy(tmp_path / "links.db", tmp_path / "backup")
    shutil.copy(tmp_path / "links.db-wal", tmp_path / "backup-wal")
    opened.contexts.reserve(stored.id, 256)
    opened.database.crash()
    shutil.copy(tmp_path / "backup", tmp_path / "links.db")
    shutil.copy(tmp_path / "backup-wal", tmp_path / "links.db-wal")
    (tmp_path / "links.db-shm").unlink(missing_ok=True)
    again = links()
    assert not again.database.restored
    assert again.contexts.links() == ()
    dropped = [each for each in incidents.unreported(again.database, 100) if each.name == "oscore.dropped"]
    assert [each.values["links"] for each in dropped] == ["lte,sat"]


def test_a_copied_folder_drops_every_context(links, tmp_path: Path) -> None:
    opened = links()
    put(opened)
    opened.close()
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert links(tmp_path / "copy").contexts.links() == ()


def test_other_hardware_drops_every_context(links) -> None:
    opened = links(host=b"one")
    put(opened)
    opened.close()
    assert links(host=b"two").contexts.links() == ()


def test_damage_drops_every_context(links, tmp_path: Path, flip) -> None:
    opened = links()
    put(opened, secret=b"0123456789abcdef")
    opened.close()
    flip(tmp_path / "links.db", b"0123456789abcdef")
    assert links().contexts.links() == ()


def test_a_window_saved_at_a_clean_end_is_known_until_numbers_are_used_again(links) -> None:
    opened = links()
    stored = put(opened)
    opened.contexts.save_window(stored.id, ReplayWindow(40, 0b1011))
    opened.close()
    opened = links()
    again = opened.contexts.get("sat")
    assert again is not None
    assert again.window == ReplayWindow(40, 0b1011)
    opened.contexts.forget_window(again.id)
    again = opened.contexts.get("sat")
    assert again is not None
    assert again.window is None


def test_another_boot_of_the_computer_ends_every_session(links) -> None:
    """An image of the disk that was put back looks like what was written last; to put it back takes a boot."""
    put(links(boot=7))
    assert links(boot=7).contexts.links() == ("sat",)
    assert links(boot=0).contexts.links() == ("sat",), "where a boot has no name nothing is known against it"
    assert links(boot=8).contexts.links() == ()
    put(links(boot=8))
    assert links(boot=8).contexts.links() == ("sat",)
