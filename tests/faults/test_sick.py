"""A short while on a full disk; `make faults ARGS=--sick` takes longer, and a disk that goes read-only too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.powercut import disk


def test_a_truck_works_again_once_its_disk_does_and_lost_nothing_that_it_took() -> None:
    if (reason := disk.why_not()) is not None:
        pytest.skip(reason)
    # A process of its own: mounts are to end with it, and it forks before it has a thread.
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--sick", "--case", "full", "--seconds", "0.5"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("disk full: works again after")
    # By the daemon that lived through it, or by the one after it.
    assert "store.refused" in done.stdout or "daemon.died" in done.stdout
