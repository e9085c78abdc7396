"""Cut after cut under busy processes on one disk, two of four: the truck's queue, its links, its content, the gateway's
store.

A cut ends both; what each had told before is then looked for. The harness proves itself first: with
`synchronous=NORMAL` the same queue must lose acknowledged parcels in at least a fifth of the cuts.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from store.files import publish
from tests.powercut.disk import Disk, scratch_folder
from tests.powercut.nursery import Life, Nursery
from tests.powercut.works import ContentWork, FleetWork, LinksWork, QueueWork, Work, prepare_fleet

CUTS_A_DISK = 20
BUSY = 2  # as many as a small machine has cores: the others would only wait
VOID_SHARE_MIN = 0.2
_FIRST_WORDS_S = 60.0
_DELAY_S_MAX = 0.2
_NAMES_SHOWN = 5


class VoidError(Exception):
    """The harness lost nothing where it had to: its results mean nothing."""


@dataclass
class Tally:
    """What a number of cuts showed."""

    cuts: int = 0
    told: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    by_disk: dict[str, int] = field(default_factory=dict)


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder for images."""
    with tempfile.TemporaryDirectory(prefix="powercut-", dir=scratch_folder()) as folder:
        yield Path(folder)


@contextmanager
def disk_of(kind: str) -> Iterator[Disk]:
    """Give a fresh disk."""
    with scratch() as folder:
        disk = Disk(folder, kind)
        try:
            yield disk
        finally:
            disk.close()


def cut_often(nursery: Nursery, kinds: Sequence[str], cuts: int, seed: int) -> Tally:
    """Cut the power `cuts` times, on a fresh disk now and then, one kind of file system after another."""
    tally, chance = Tally(), random.Random(seed)
    begun = time.monotonic()
    with scratch() as folder:
        prepare_fleet(folder)
        while tally.cuts < cuts and not tally.wrong:
            kind = kinds[tally.cuts // CUTS_A_DISK % len(kinds)]
            _cut_one_disk(nursery, kind, folder / "fleet.db", min(CUTS_A_DISK, cuts - tally.cuts), chance, tally)
    tally.wrong = [f"seed {seed}, {line}" for line in tally.wrong]
    tally.seconds = time.monotonic() - begun
    return tally


def _cut_one_disk(nursery: Nursery, kind: str, fleet: Path, cuts: int, chance: random.Random, tally: Tally) -> None:
    with disk_of(kind) as disk:
        works: list[Work] = [QueueWork(), LinksWork(), ContentWork(), FleetWork()]
        publish(disk.root / fleet.name, fleet.read_bytes())
        for _ in range(cuts):
            # Now and then one alone: another's fsync would make durable what this one forgot.
            busy = chance.sample(works, chance.randint(1, BUSY))
            lives = [
                nursery.start(each.function, str(disk.root), chance.getrandbits(32), *each.options) for each in busy
            ]
            tally.told += _cut(disk, busy, lives, chance)
            tally.cuts += 1
            tally.by_disk[kind] = tally.by_disk.get(kind, 0) + 1
            found = [line for each in busy for line in each.check(disk.root)[:_NAMES_SHOWN]]
            if found:
                tally.wrong += [f"cut {tally.cuts}, {kind}: {line}" for line in found]
                return


def _cut(disk: Disk, works: Sequence[Work], lives: Sequence[Life], chance: random.Random) -> int:
    """Let the works run for a moment, cut, and bring the disk back; return how many promises were read before."""
    told = 0
    try:
        for work, life in zip(works, lives, strict=True):
            if not life.wait_for_words(_FIRST_WORDS_S):
                raise AssertionError(f"{work.function} says nothing")
        time.sleep(chance.uniform(0, _DELAY_S_MAX))
        for work, life in zip(works, lives, strict=True):
            for words in life.read():
                if words[0] == "raised":
                    raise AssertionError(f"{work.function} failed before the cut: {words[1:]}")
                work.heard(words)
                told += 1
    finally:
        disk.cut()
        for work, life in zip(works, lives, strict=True):
            for words in life.kill():
                if words[0] != "raised":
                    work.heard(words, late=True)
        disk.remount()
    return told


def lost_without_sync(nursery: Nursery, kind: str, cuts: int, seed: int) -> int:
    """Return in how many of `cuts` a queue with `synchronous=NORMAL` loses what it had acknowledged."""
    chance, lossy = random.Random(seed), 0
    for _ in range(cuts):
        with disk_of(kind) as disk:
            work = QueueWork("NORMAL")
            life = nursery.start(work.function, str(disk.root), chance.getrandbits(32), *work.options)
            _cut(disk, [work], [life], chance)
            lossy += bool(work.check(disk.root))
    return lossy


def prove_harness(nursery: Nursery, kinds: Sequence[str], cuts: int, seed: int) -> dict[str, float]:
    """Return the share of cuts that lost something with `synchronous=NORMAL`, by file system; raise `VoidError`."""
    shares = {kind: lost_without_sync(nursery, kind, cuts, seed) / cuts for kind in kinds}
    for kind, share in shares.items():
        if share < VOID_SHARE_MIN:
            raise VoidError(
                f"void: synchronous=NORMAL lost acknowledged parcels in only {share:.0%} of {cuts} cuts on {kind}"
            )
    return shares
