"""Images of a truck's disk: what a technician puts back, or onto a second computer."""

from __future__ import annotations

import itertools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.sim.disk import Disk

_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Image:
    """A folder as a disk was at one instant; `inodes` are those that each of its files had then, and before."""

    folder: Path
    inodes: dict[str, set[int]]


def take(disk: Disk) -> Image:
    """Copy a disk, whatever runs on it: as after a power cut at this instant that tore nothing."""
    folder = disk.home / f"image-{next(_NUMBERS)}"
    shutil.copytree(disk.root, folder, symlinks=True, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
    inodes = {}
    for path in _files(disk.root):
        inode = os.stat(disk.root / path).st_ino
        inodes[path] = {inode} | disk.kept_inodes.get(inode, set())
    return Image(folder, inodes)


def put(image: Image, disk: Disk, *, as_blocks: bool) -> None:
    """Put an image in the place of what a disk holds, block by block or file by file; nothing may run on it."""
    shutil.rmtree(disk.root)
    shutil.copytree(image.folder, disk.root, symlinks=True)
    disk.kept_inodes = {}
    if as_blocks:
        for path in _files(disk.root):
            disk.kept_inodes[os.stat(disk.root / path).st_ino] = set(image.inodes.get(path, ()))


def _files(root: Path) -> list[str]:
    found = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    return sorted(os.path.relpath(each, root) for each in found if not os.path.islink(each))
