"""Content for which there was no room is tried again soon after there is, and not before."""

from __future__ import annotations

import errno

from edge.installer import DiskFullError
from edge.jobs import Job
from edge.roomless import LOOK_S, Roomless
from protocol import cose
from protocol.documents import Addressee, Manifest, Rollout, parse_document
from tests.gateway.fleets import Signers


def _job() -> Job:
    signers = Signers()
    signed = signers.manifest({"index.html": b"x"}, version=1, name="maths")
    rollout = signers.rollout(cose.digest(signed), version=1, to=Addressee(("ke-arrow",)))
    return Job(parse_document(rollout, Rollout)[0], parse_document(signed, Manifest)[0], signed)


class _Disk:
    def __init__(self) -> None:
        self.now, self.is_full, self.looks = 100.0, True, 0

    def check_room(self, manifest: Manifest) -> None:
        self.looks += 1
        if self.is_full:
            raise DiskFullError("no room")

    def monotonic(self) -> float:
        return self.now


def test_what_fits_by_now_is_found_at_the_next_look() -> None:
    disk, job = _Disk(), _job()
    roomless, failed = Roomless(disk.check_room, disk.monotonic), {job.key: 3_700.0}
    roomless.note(job, DiskFullError("no room"))
    roomless.release([job], failed)
    assert disk.looks == 0
    disk.now += LOOK_S
    roomless.release([job], failed)
    assert failed
    assert roomless.look_s == LOOK_S
    disk.now, disk.is_full = disk.now + LOOK_S, False
    roomless.release([job], failed)
    assert not failed
    assert roomless.look_s == float("inf")


def test_a_disk_without_inodes_is_not_tried_over_and_over() -> None:
    disk, job = _Disk(), _job()
    disk.is_full = False
    roomless, failed = Roomless(disk.check_room, disk.monotonic), {job.key: 3_700.0}
    roomless.note(job, OSError(errno.ENOSPC, "no inodes"))
    roomless.release([job], failed)
    assert failed


def test_other_failures_wait_their_time() -> None:
    disk, job = _Disk(), _job()
    roomless = Roomless(disk.check_room, disk.monotonic)
    roomless.note(job, OSError(errno.EIO, "broken"))
    assert roomless.look_s == float("inf")


def test_what_is_not_wanted_any_more_is_forgotten() -> None:
    disk, job = _Disk(), _job()
    roomless = Roomless(disk.check_room, disk.monotonic)
    roomless.note(job, DiskFullError("no room"))
    roomless.release([], {})
    assert roomless.look_s == float("inf")
