"""Update bytes beside the best tools for it, on pairs from the package registries or on two folders.

    make bench ARGS=content
    make bench ARGS="content --pairs C,E --only ours,zstd-file --keep /var/tmp/pairs"
    make bench ARGS="content OLD NEW"

Each tool gets the same two folders. `-file` compares each changed file with the one of the same path, `-tar` one
archive of everything with the other. Tools that are not installed are left out, and said to be. What is ours is decoded
again by a process that has the old files alone, and every file compared.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import bsdiff4
import hdiffpatch

from tests.bench.content_sources import PAIRS, Unavailable, bring

NAME = "content"
GOAL_RATIO = 1.05
DEFAULT_PAIRS = "A,C,D,E,F"
DECODE_MIB_MAX = 100
Row = tuple[str, str, str, str]


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
    return len(bsdiff4.diff(old, new))


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


@dataclass(frozen=True, slots=True)
class Work:
    """What making or taking an update took: seconds and peak memory (MiB), and what it told."""

    seconds: float
    peak_mib: float
    told: Mapping[str, float]


def work(*arguments: str | Path) -> Work:
    """Run `content_work` in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.content_work", *map(str, arguments)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return Work(told["seconds"], told["peak_mib"], told)


def ours(old: Path, new: Path) -> tuple[int, Work, Work]:
    """Return the bytes of pack and manifest, and what encoding and decoding took."""
    with tempfile.TemporaryDirectory() as place:
        made = work("encode", old, new, place)
        taken = work("decode", old, place)
    if not taken.told["right"]:
        raise RuntimeError("the round trip failed")
    return int(made.told["pack"] + made.told["manifest"]), made, taken


METHODS: dict[str, tuple[str | None, Callable[[Path, Path], int]]] = {
    "rsync": ("rsync", rsync),
    "casync": ("casync", casync),
    "zstd-file": ("zstd", lambda old, new: sum(zstd(*pair) for pair in changed(old, new))),
    "zstd-tar": ("zstd", lambda old, new: zstd(tarred(old), tarred(new))),
    "hdiff-file": (None, lambda old, new: sum(hdiff(*pair) for pair in changed(old, new))),
    "hdiff-tar": (None, lambda old, new: hdiff(tarred(old), tarred(new))),
    "bsdiff-file": (None, lambda old, new: sum(bsdiff(*pair) for pair in changed(old, new))),
}


def compare(name: str, old: Path, new: Path, only: frozenset[str]) -> list[Row]:
    """Return the rows of one pair; each method is told as it ends, since some take minutes."""
    rows: list[Row] = []
    taken: dict[str, int] = {}
    for method, (tool, run_it) in METHODS.items():
        if only and method not in only:
            continue
        if tool is not None and shutil.which(tool) is None:
            rows.append((f"{name}: {method}", "not installed", "", ""))
            continue
        started = time.monotonic()
        taken[method] = run_it(old, new)
        spent = time.monotonic() - started
        rows.append((f"{name}: {method}", f"{taken[method]:,} B", f"{spent:.1f} s", ""))
        print(f"{name}: {method} {taken[method]:,} B, {spent:.1f} s", file=sys.stderr, flush=True)
    if only and "ours" not in only:
        return rows
    size, made, decoded = ours(old, new)
    best = min(taken, key=taken.__getitem__, default=None)
    anchor = "" if best is None else f"{best} {taken[best]:,} B, ratio {size / taken[best]:.3f}"
    rows.append((f"{name}: ours", f"{size:,} B", anchor, f"{GOAL_RATIO} x the best"))
    rows.append((f"{name}: encode", f"{made.seconds:.1f} s", f"{made.peak_mib:.0f} MiB", ""))
    peak = f"{decoded.peak_mib:.0f} MiB"
    rows.append((f"{name}: decode", f"{decoded.seconds:.1f} s", peak, f"{DECODE_MIB_MAX} MiB"))
    for row in rows[-3:]:
        print(" | ".join(row), file=sys.stderr, flush=True)
    return rows


def run(args: list[str]) -> list[Row]:
    """Return the figures of the pairs that can be had."""
    parser = argparse.ArgumentParser(prog="content", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, metavar="OLD NEW")
    parser.add_argument("--pairs", default=DEFAULT_PAIRS, help=f"of {', '.join(PAIRS)}")
    parser.add_argument("--only", default="", help="these methods alone")
    parser.add_argument("--keep", type=Path, help="a folder that keeps the pairs for the next run")
    chosen = parser.parse_args(args)
    only = frozenset(each for each in chosen.only.split(",") if each)
    if chosen.folders:
        if len(chosen.folders) != 2:
            parser.error("name two folders")
        return compare("folders", *chosen.folders, only)
    wanted = chosen.pairs.split(",")
    if not set(wanted) <= set(PAIRS):
        parser.error(f"the pairs are {', '.join(PAIRS)}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        place = chosen.keep or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        for pair in wanted:
            try:
                old, new = bring(pair, place)
            except Unavailable as reason:
                rows.append((f"{pair}: not measured", str(reason), "", ""))
                continue
            rows += compare(pair, old, new, only)
    return rows
