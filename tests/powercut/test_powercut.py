"""Thirty real power cuts in every run of the tests; `make powercut N=1000` makes as many as one likes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.powercut import disk
from tests.powercut.tap import NonceWatch

_CUTS, _DAEMON_CUTS, _PROOF = 25, 5, 3
_SECONDS_MAX = 600


def test_nothing_acknowledged_is_lost_in_thirty_power_cuts() -> None:
    if (reason := disk.why_not()) is not None:
        pytest.skip(reason)
    # A process of its own: mounts are to end with it, and it forks before it has a thread.
    command = [sys.executable, "-m", "tests.powercut", "--cuts", str(_CUTS), "--daemons", str(_DAEMON_CUTS)]
    done = subprocess.run(
        [*command, "--proof", str(_PROOF), "--json"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["objects"]["cuts"], found["daemons"]["cuts"]) == (_CUTS, _DAEMON_CUTS)
    assert found["objects"]["told"] > _CUTS
    assert all(share >= 0.2 for share in found["normal_lost"].values())


def request(number: int, payload: bytes) -> bytes:
    # NON POST, no token, OSCORE option (9): flags with a one-byte partial IV and a kid, the number, the kid.
    return bytes([0x50, 0x02, 0, number, 0x93, 0x09, number, 0x4B, 0xFF]) + payload


def test_the_watch_sees_a_nonce_that_protects_two_messages() -> None:
    watch = NonceWatch()
    for payload in (b"first", b"first"):
        watch.request(request(1, payload), "truck")
    watch.request(request(2, b"other"), "truck")
    assert (len(watch.seen), watch.doubled) == (2, [])
    watch.request(request(1, b"second"), "truck")
    assert watch.doubled == ["the nonce of request 01 of kid 4b protects two messages"]
    answer = bytes([0x50, 0x44, 0, 9, 0x90, 0xFF])
    watch.answer(answer + b"yes", "truck")
    watch.answer(answer + b"no", "truck")
    assert len(watch.doubled) == 2
