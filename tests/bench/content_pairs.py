"""Update bytes beside the best tools for it, on two folders or on pairs from the package registries.

    python -m tests.bench.content_pairs OLD NEW [--only ours,zstd-file,...]
    python -m tests.bench.content_pairs --pair C

Each tool gets the same two folders. `-file` compares each changed file with the one of the same path, `-tar` one
archive of everything with the other. Tools that are not installed are left out, and said to be.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hdiffpatch

from gateway.cli.bundle_diff import measure
from gateway.publishing import scan

GOAL_RATIO = 1.05
# Pair -> package, two versions, the part of it (a pattern below the unpacked wheel; None: the wheel itself).
WHEELS: dict[str, tuple[str, str, str, str | None]] = {
    "B": ("kolibri", "0.19.4", "0.19.5", "**/*"),
    "B'": ("kolibri", "0.19.4", "0.19.5", None),
    "C": ("pyproj", "3.7.0", "3.7.2", "**/proj.db"),
    "D": ("arcade", "2.6.17", "3.3.0", "arcade/resources/**/*"),
}


def files(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by their paths."""
    return {str(each.relative_to(folder)): each for each in sorted(folder.rglob("*")) if each.is_file()}


def changed(old: Path, new: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield each content that is new, after that of the same path before it (or nothing)."""
    before = files(old)
    seen = {hashlib.sha256(each.read_bytes()).digest() for each in before.values()}
    for path, file in files(new).items():
        data = file.read_bytes()
        digest = hashlib.sha256(data).digest()
        if digest not in seen:
            seen.add(digest)
            yield before[path].read_bytes() if path in before else b"", data


def tarred(folder: Path) -> bytes:
    """Return one archive of a folder, without times and owners."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, file in files(folder).items():
            entry = tarfile.TarInfo(path)
            entry.size = file.stat().st_size
            with file.open("rb") as stream:
                tar.addfile(entry, stream)
    return out.getvalue()


def zstd(old: bytes, new: bytes) -> int:
    """Return the size of `zstd --patch-from` at its highest level."""
    with tempfile.NamedTemporaryFile() as before, tempfile.NamedTemporaryFile() as after:
        before.write(old)
        after.write(new)
        before.flush()
        after.flush()
        base = [f"--patch-from={before.name}"] if old else []
        command = ["zstd", "-22", "--ultra", "--long=31", "-q", "-c", *base, after.name]
        return len(subprocess.run(command, capture_output=True, check=True).stdout)


def hdiff(old: bytes, new: bytes) -> int:
    """Return the size of HDiffPatch's diff, packed by LZMA2."""
    return len(hdiffpatch.diff(old, new, hdiffpatch.COMPRESSION_LZMA2, validate=False))


def bsdiff(old: bytes, new: bytes) -> int:
    """Return the size of bsdiff's patch."""
    with tempfile.TemporaryDirectory() as folder:
        names = [Path(folder, name) for name in ("old", "new", "patch")]
        names[0].write_bytes(old)
        names[1].write_bytes(new)
        subprocess.run(["bsdiff", *names], check=True, capture_output=True)
        return names[2].stat().st_size


def casync(old: Path, new: Path) -> int:
    """Return the bytes of the chunks of 16 KiB that casync would fetch, with its index."""
    with tempfile.TemporaryDirectory() as folder:
        stores = []
        for number, each in enumerate((old, new)):
            store = Path(folder, f"{number}.castr")
            index = Path(folder, f"{number}.caidx")
            command = ["casync", "make", "--with=2sec-time", "--chunk-size=16384", f"--store={store}", index, each]
            subprocess.run(command, check=True, capture_output=True)
            stores.append({file.name: file.stat().st_size for file in store.rglob("*") if file.is_file()})
        fetched = sum(size for name, size in stores[1].items() if name not in stores[0])
        return fetched + Path(folder, "1.caidx").stat().st_size


def rsync(old: Path, new: Path) -> int:
    """Return the bytes that rsync sends and receives, packed by zstd 19, between two processes of one machine."""
    with tempfile.TemporaryDirectory() as folder:
        copy, shell = Path(folder, "copy"), Path(folder, "shell")
        shutil.copytree(old, copy)
        # In place of ssh: drops the name of the host and runs the rest here.
        shell.write_text('#!/bin/sh\nshift\nexec "$@"\n')
        shell.chmod(0o700)
        command = [
            "rsync", "-rc", "--no-whole-file", "--delete", "-z", "--zc=zstd", "--zl=19", "--stats",
            "-e", shell, f"{new}/", f"here:{copy}/",
        ]  # fmt: skip
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        totals = [line.rpartition(":")[2] for line in said.splitlines() if line.startswith("Total bytes ")]
        return sum(int(total.replace(",", "").replace(".", "")) for total in totals)


def ours(old: Path, new: Path) -> int:
    """Return pack and manifest, decoded again and compared."""
    report = measure(scan(old) if files(old) else None, scan(new))
    if not report.round_trip:
        raise RuntimeError("the round trip failed")
    return report.pack_bytes + report.manifest_bytes


METHODS: dict[str, tuple[str | None, Callable[[Path, Path], int]]] = {
    "ours": (None, ours),
    "rsync": ("rsync", rsync),
    "casync": ("casync", casync),
    "zstd-file": ("zstd", lambda old, new: sum(zstd(*pair) for pair in changed(old, new))),
    "zstd-tar": ("zstd", lambda old, new: zstd(tarred(old), tarred(new))),
    "hdiff-file": (None, lambda old, new: sum(hdiff(*pair) for pair in changed(old, new))),
    "hdiff-tar": (None, lambda old, new: hdiff(tarred(old), tarred(new))),
    "bsdiff-file": ("bsdiff", lambda old, new: sum(bsdiff(*pair) for pair in changed(old, new))),
}


def fetch_wheels(pair: str, place: Path) -> tuple[Path, Path]:
    """Bring both versions of a pair from the package index; return their folders."""
    package, first, second, pattern = WHEELS[pair]
    folders = []
    for version in (first, second):
        folder, wheel = place / version, place / f"{version}-wheel"
        folder.mkdir()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "--dest", wheel, f"{package}=={version}"], check=True)
        (file,) = wheel.iterdir()
        if pattern is None:
            shutil.copy(file, folder / f"{package}.whl")
        else:
            with zipfile.ZipFile(file) as archive:
                archive.extractall(wheel / "all")
            for each in (wheel / "all").glob(pattern):
                if each.is_file():
                    kept = folder / each.relative_to(wheel / "all")
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(each, kept)
        folders.append(folder)
    return folders[0], folders[1]


def compare(old: Path, new: Path, only: frozenset[str]) -> bool:
    """Print what each method takes, and whether ours is within the goal of the best other one."""
    taken: dict[str, int] = {}
    for name, (tool, method) in METHODS.items():
        if only and name not in only:
            continue
        if tool is not None and shutil.which(tool) is None:
            print(f"{name:12} not installed")
            continue
        started = time.monotonic()
        taken[name] = method(old, new)
        print(f"{name:12} {taken[name]:>12,} B {time.monotonic() - started:8.1f} s", flush=True)
    others = [size for name, size in taken.items() if name != "ours"]
    if "ours" not in taken or not others:
        return True
    ratio = taken["ours"] / min(others)
    print(f"ours is {ratio:.3f} of the best other (goal: at most {GOAL_RATIO})")
    return ratio <= GOAL_RATIO


def main() -> int:
    """Run from the command line; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="OLD NEW")
    parser.add_argument("--pair", choices=list(WHEELS))
    parser.add_argument("--only", default="")
    chosen = parser.parse_args()
    only = frozenset(each for each in chosen.only.split(",") if each)
    if chosen.pair is None and len(chosen.folders) != 2:
        parser.error("name two folders, or a pair")
    with tempfile.TemporaryDirectory() as place:
        old, new = chosen.folders if chosen.pair is None else fetch_wheels(chosen.pair, Path(place))
        return 0 if compare(old, new, only) else 1


if __name__ == "__main__":
    sys.exit(main())
