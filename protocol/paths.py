"""Paths of a bundle: what every file system that a truck or a stick may have can hold, and none of them merges."""

from __future__ import annotations

import unicodedata


def check_paths(paths: list[str]) -> None:
    """Check the paths of a bundle: relative, plain, NFC, case-fold unique, ascending; raise `ValueError` naming one.

    These rules hold on every file system a truck or a stick may have: no links, no climbing, no names that a FAT or
    case-insensitive disk would merge, no control or look-alike separators.
    """
    seen: set[str] = set()
    last = ""
    for path in paths:
        if path <= last:
            raise ValueError(f"paths are not in strictly ascending order at {path!r}")
        last = path
        _check_path(path)
        folded = path.casefold()
        if folded in seen:
            raise ValueError(f"{path!r} differs from another path only in case")
        seen.add(folded)
    for path in seen:
        parent = path
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent in seen:
                raise ValueError(f"{parent!r} is both a file and a folder")


_RESERVED = frozenset({"con", "prn", "aux", "nul"} | {f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10)})


def _check_path(path: str) -> None:
    if unicodedata.normalize("NFC", path) != path:
        raise ValueError(f"{path!r} is not in Unicode normal form C")
    if any(unicodedata.category(char)[0] == "C" or char in '\\:*?"<>|' for char in path):
        raise ValueError(f"{path!r} has a character that not every file system can hold")
    for part in path.split("/"):
        if part in ("", ".", "..") or part[0] == " " or part[-1] in ". ":
            raise ValueError(f"{path!r} is not a plain relative path")
        if len(part.encode()) > 255 or part.partition(".")[0].casefold() in _RESERVED:
            raise ValueError(f"{path!r} has a name that not every file system can hold")
