"""The list that kiwix-serve watches: each change of it has a later second than the one before."""

from __future__ import annotations

import os
from pathlib import Path

from edge.zimlibrary import LIBRARY, write_library


def test_a_change_within_one_second_has_a_later_time_all_the_same(tmp_path: Path) -> None:
    library = tmp_path / LIBRARY
    library.write_text("what was there before")
    ahead_s = int(library.stat().st_mtime) + 3_600  # written under a clock that has gone back since
    os.utime(library, (ahead_s, ahead_s))
    write_library(tmp_path, [])
    assert library.read_text().endswith("</library>\n")
    assert library.stat().st_mtime == ahead_s + 1
    write_library(tmp_path, [])
    assert library.stat().st_mtime == ahead_s + 1  # nothing changed


def test_without_a_bundle_of_its_kind_there_is_no_library(tmp_path: Path) -> None:
    write_library(tmp_path, [])
    assert not (tmp_path / LIBRARY).exists()
