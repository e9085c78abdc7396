"""The lessons that the demo publishes: big enough, the same every time, and mostly the same in the next edition."""

from pathlib import Path

from gateway.demo.lessons import write_lessons
from gateway.publishing import scan


def test_an_edition_has_the_size_that_was_asked_for_and_can_be_published(tmp_path: Path) -> None:
    write_lessons(tmp_path / "one", edition=1, bytes_min=200_000)
    source = scan(tmp_path / "one")
    assert 200_000 <= source.size < 300_000
    assert "index.html" in {each.path for each in source.files}


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "again"):
        write_lessons(tmp_path / name, edition=2, bytes_min=100_000, seed=7)
    one, again = scan(tmp_path / "one"), scan(tmp_path / "again")
    assert [(each.path, each.digest) for each in one.files] == [(each.path, each.digest) for each in again.files]


def test_the_next_edition_keeps_most_files_and_changes_some(tmp_path: Path) -> None:
    for edition in (1, 2):
        write_lessons(tmp_path / str(edition), edition=edition, bytes_min=500_000)
    first, second = ({each.path: each.digest for each in scan(tmp_path / name).files} for name in ("1", "2"))
    same = [path for path, digest in second.items() if first.get(path) == digest]
    assert len(second) == len(first) + 1
    assert 0.7 * len(second) < len(same) < len(first)
