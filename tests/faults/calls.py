"""Every call in turn: each scene, each kind of call, each way to fail, from the first call to beyond the last."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.contact import ContactScene
from tests.faults.inject import CALLS, FAULTS, Fault, Outcome, play
from tests.faults.scenes import SCENES, Scene
from tests.powercut.disk import scratch_folder
from tests.powercut.nursery import Nursery

N_MAX = 2_000


@dataclass
class Tally:
    """What the runs of one scene showed."""

    runs: int = 0
    seconds: float = 0.0
    calls: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


@contextmanager
def templates(names: Mapping[str, Scene]) -> Iterator[dict[str, Path]]:
    """Give each scene's folder as it is before the scene is played."""
    with tempfile.TemporaryDirectory(prefix="faults-", dir=scratch_folder()) as base:
        made = {}
        for name, scene in names.items():
            made[name] = Path(base) / name
            made[name].mkdir()
            scene.prepare(made[name])
            _forget_identities(made[name])
        try:
            yield made
        finally:
            for scene in names.values():
                scene.close()


def _forget_identities(folder: Path) -> None:
    """Let a copy pass for the original: what a restored database does is another scene."""
    for file in folder.glob("*.identity"):
        with contextlib.closing(sqlite3.connect(file.with_suffix(""))) as connection:
            connection.execute("DELETE FROM identity")
            connection.commit()
        file.unlink()


def try_one(nursery: Nursery, scene: Scene, template: Path, fault: Fault | None) -> tuple[Outcome, list[str]]:
    """Play a scene under a fault; return what came of it and what is wrong afterwards."""
    arguments = scene.arguments(template)
    outcome = play(nursery, scene.function, arguments, fault, within_s=scene.within_s)
    wrong = scene.check(Path(arguments[0]), outcome.told)
    if outcome.end == "hung":
        wrong.append(f"it hung for {scene.within_s:.0f} s")
    if fault is None and outcome.end != "done":
        wrong.append(f"it ends with {outcome.end} though no call fails: {outcome.told[-1:]}")
    return outcome, wrong


def try_all(nursery: Nursery, name: str, scene: Scene, template: Path) -> Tally:
    """Let every call of a scene fail in every way."""
    tally, begun = Tally(), time.monotonic()
    _, found = try_one(nursery, scene, template, None)
    tally.wrong += [f"{name} in peace: {line}" for line in found]
    for call in CALLS:
        for fault in FAULTS:
            for n in range(1, N_MAX):
                each = Fault(call, fault, n)
                outcome, found = try_one(nursery, scene, template, each)
                tally.runs += 1
                tally.wrong += [f"{name}, {each} ({outcome.end}): {line}" for line in found]
                if not outcome.was_hit:
                    tally.calls[call] = n - 1
                    break
    tally.seconds = time.monotonic() - begun
    return tally


def scenes(nursery: Nursery) -> Mapping[str, Scene]:
    """Return every scene by its name."""
    return {**SCENES, "contact": ContactScene(nursery)}
