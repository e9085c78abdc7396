"""The pairs of contents that updates are measured on, brought from package registries by their ordinary clients.

A: HTML documentation; C: a SQLite database; D: media and fonts; E: A as a zip in the style of an EPUB; F: A as a ZIM;
B and B': a learning platform, unpacked and as one zip. `pip` and `apt-get` are asked by package name and version.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

# Pair -> package, two versions, the part of it (a pattern below the unpacked wheel; None: the wheel itself).
WHEELS: dict[str, tuple[str, str, str, str | None]] = {
    "B": ("kolibri", "0.19.4", "0.19.5", "**/*"),
    "B'": ("kolibri", "0.19.4", "0.19.5", None),
    "C": ("pyproj", "3.7.0", "3.7.2", "**/proj.db"),
    "D": ("arcade", "2.6.17", "3.3.0", "arcade/resources/**/*"),
}
_PAGES = "postgresql-doc-15"
_PAGES_BELOW = "usr/share/doc/postgresql-doc-15/html"
PAIRS = ("A", "B", "B'", "C", "D", "E", "F")


class Unavailable(Exception):
    """A pair that cannot be had here; the text says why."""


def bring(pair: str, place: Path) -> tuple[Path, Path]:
    """Return the folders of both versions of a pair, brought below `place` unless they are there; or `Unavailable`."""
    folders = place / f"{pair}-old", place / f"{pair}-new"
    if all(each.is_dir() for each in folders):
        return folders
    if pair in WHEELS:
        _bring_wheels(pair, place, folders)
    else:
        pages = _bring_pages(place)
        pack: Callable[[Path, Path], None] = {"A": _copy, "E": _book, "F": _zim}[pair]
        for source, folder in zip(pages, folders, strict=True):
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            pack(source, part)
            part.rename(folder)
    return folders


def _bring_wheels(pair: str, place: Path, folders: tuple[Path, Path]) -> None:
    package, *versions, pattern = WHEELS[pair]
    for version, folder in zip(versions, folders, strict=True):
        part, wheels = folder.with_suffix(".part"), place / f"{pair}-{version}-wheel"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        _run([*command, "--dest", str(wheels), f"{package}=={version}"])
        (file,) = wheels.glob("*.whl")
        if pattern is None:
            shutil.copy(file, part / f"{package}.whl")
        else:
            with zipfile.ZipFile(file) as archive:
                archive.extractall(wheels / "all")
            for each in (wheels / "all").glob(pattern):
                if each.is_file():
                    kept = part / each.relative_to(wheels / "all")
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(each, kept)
        shutil.rmtree(wheels)
        part.rename(folder)


def _bring_pages(place: Path) -> tuple[Path, Path]:
    """Return the pages of the two newest versions that apt lists, the older one first."""
    said = _run(["apt-cache", "madison", _PAGES])
    versions = list(dict.fromkeys(line.split("|")[1].strip() for line in said.splitlines() if "|" in line))
    if len(versions) < 2:
        raise Unavailable(f"apt lists {len(versions)} versions of {_PAGES}; two are needed")
    found = []
    for version in reversed(versions[:2]):
        folder = place / f"pages-{version.replace(':', '_')}"
        if not folder.is_dir():
            debs = place / "debs"
            debs.mkdir(exist_ok=True)
            _run(["apt-get", "download", "--quiet", f"{_PAGES}={version}"], cwd=debs)
            (deb,) = debs.glob("*.deb")
            _run(["dpkg-deb", "-x", str(deb), str(debs / "all")])
            shutil.move(debs / "all" / _PAGES_BELOW, folder)
            shutil.rmtree(debs)
        found.append(folder)
    return found[0], found[1]


def _copy(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True, symlinks=False)


def _book(source: Path, folder: Path) -> None:
    """Write one zip, its first member stored, as EPUBs are; times are fixed, so that only the pages differ."""
    with zipfile.ZipFile(folder / "book.epub", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as book:
        book.writestr(zipfile.ZipInfo("mimetype"), b"application/epub+zip")
        for file in sorted(each for each in source.rglob("*") if each.is_file()):
            entry = zipfile.ZipInfo(f"OEBPS/{file.relative_to(source)}")
            entry.compress_type = zipfile.ZIP_DEFLATED
            book.writestr(entry, file.read_bytes(), compresslevel=9)


def _zim(source: Path, folder: Path) -> None:
    if shutil.which("zimwriterfs") is None:
        raise Unavailable("zimwriterfs is not installed: apt-get install zim-tools")
    html = folder / "html"
    shutil.copytree(source, html)
    (html / "picture.png").write_bytes(_picture())
    words = {"language": "eng", "title": "Pages", "description": "Pages", "creator": "bench", "publisher": "bench"}
    options = [f"--{name}={value}" for name, value in words.items()]
    _run(
        ["zimwriterfs", "--welcome=index.html", "--illustration=picture.png", *options, str(html), "pages.zim"], folder
    )
    shutil.rmtree(html)


def _picture() -> bytes:
    """Return a PNG of 48 x 48 grey points."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 48, 48, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x80" * 48) * 48)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _run(command: list[str], cwd: Path | None = None) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout
    except FileNotFoundError as error:
        raise Unavailable(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"{' '.join(command[:3])} failed: {error.stderr.strip()[-200:]}") from error
