"""What was moved aside and is kept under a numbered name, NAME.WORD-N: the newest few, within a share of the disk.

A file that is damaged or was replaced is worth a look by a person, but nobody comes to throw it away, and each may be
as large as what took its place. Numbers are not given again while a higher one is there, so that they tell the age.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

KEPT_MAX: Final = 3


def asides_of(path: Path, word: str) -> list[Path]:
    """Return what was moved aside from `path` for this reason, oldest first."""
    start = f"{path.name}.{word}-"
    found = [each for each in path.parent.glob(f"{start}*") if each.name.removeprefix(start).isdecimal()]
    return sorted(found, key=lambda each: int(each.name.removeprefix(start)))


def next_aside(path: Path, word: str) -> Path:
    """Return the name for the next one."""
    newest = asides_of(path, word)[-1:]
    number = int(newest[0].name.rpartition("-")[2]) + 1 if newest else 1
    return path.with_name(f"{path.name}.{word}-{number}")


def prune_asides(
    path: Path,
    word: str,
    *,
    bytes_max: int,
    parts: tuple[str, ...] = (),
    may_go: Callable[[Path], bool] = lambda aside: True,
) -> list[Path]:
    """Delete all but the newest `KEPT_MAX` that together take at most `bytes_max`; return which went.

    The newest stays whatever it takes, and what `may_go` does not let go. `parts` are suffixes of files beside each.
    """
    gone, kept_bytes = [], 0
    for age, aside in enumerate(reversed(asides_of(path, word))):
        beside = [each for part in parts if (each := aside.with_name(aside.name + part)).exists()]
        size = sum(_size(each) for each in [aside, *beside])
        if age and (age >= KEPT_MAX or kept_bytes + size > bytes_max) and may_go(aside):
            # It goes first, then what lies beside it: a cut in between leaves nothing that looks whole.
            for each in [aside, *beside]:
                _delete(each)
            gone.append(aside)
        else:
            kept_bytes += size
    return gone


def _size(path: Path) -> int:
    return sum(each.stat().st_size for each in path.rglob("*")) if path.is_dir() else path.stat().st_size


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
