"""What daemons ended with is told by the next one, once; a clean end is not told."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from edge.lives import Lives
from store import incidents
from store.attempts import Attempts
from store.database import open_database
from store.schema import LINKS, STATE
from store.writer import Writer


async def told(folder: Path) -> list[tuple[str, dict[str, object]]]:
    """Return what a new daemon tells of the lives before it."""
    state = open_database(folder / "state.db", schema=STATE, share_bytes=8 << 20)
    links = open_database(folder / "links.db", schema=LINKS, share_bytes=8 << 20)
    writer = Writer(state)
    writer.start()
    await Lives(Attempts(folder / "attempts"), folder).tell(state, links, writer)
    await writer.close()
    found = [(each.name, dict(each.values)) for each in incidents.unreported(state, 100)]
    incidents.mark_reported(state, [each.id for each in incidents.unreported(state, 100)])
    state.close()
    links.close()
    return [each for each in found if each[0] not in ("store.epoch", "store.recreated", "store.restored")]


def live(folder: Path, error: BaseException) -> None:
    with Lives(Attempts(folder / "attempts"), folder).one():
        raise error


async def test_a_clean_end_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(asyncio.CancelledError):
        live(tmp_path, asyncio.CancelledError())
    assert await told(tmp_path) == []


async def test_ends_are_told_once_with_their_number(tmp_path: Path) -> None:
    for _ in range(3):
        with pytest.raises(ValueError, match="trouble"):
            live(tmp_path, ValueError("trouble"))
    child = os.fork()
    if child == 0:
        with Lives(Attempts(tmp_path / "attempts"), tmp_path).one():
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert await told(tmp_path) == [
        ("daemon.died", {"reason": "error", "times": 3}),
        ("daemon.died", {"reason": "killed", "times": 1}),
    ]
    assert await told(tmp_path) == []


async def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.lives._FREE_BYTES_MIN", 1 << 60)
    with pytest.raises(OSError, match="space"):
        live(tmp_path, OSError("no space"))
    assert await told(tmp_path) == [("daemon.died", {"reason": "disk-full", "times": 1})]


async def test_incidents_of_links_are_told_by_state(tmp_path: Path) -> None:
    links = open_database(tmp_path / "links.db", schema=LINKS, share_bytes=8 << 20)
    incidents.record(links, "oscore.dropped", {"links": "lte"}, 5)
    links.close()
    assert await told(tmp_path) == [("oscore.dropped", {"links": "lte"})]
    assert await told(tmp_path) == []
