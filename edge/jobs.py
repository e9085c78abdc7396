"""What a rollout asks of this truck's content, and how far a download of it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from protocol.documents import Manifest, Rollout


@dataclass(frozen=True, slots=True)
class Job:
    """One rollout to be brought about."""

    rollout: Rollout
    manifest: Manifest | None
    signed: bytes

    @property
    def key(self) -> tuple[str, int, bytes | None]:
        """What tells this wish from others: a rollout signed anew for the same manifest is another try."""
        return self.rollout.bundle, self.rollout.version, self.rollout.manifest


@dataclass(frozen=True, slots=True)
class Progress:
    """What a person may want to know about a download under way."""

    bundle: str
    label: str
    pieces: int
    pieces_left: int
    waiting: str


def is_here(job: Job, arrived: Mapping[bytes, Path]) -> bool:
    """Return whether a stick brought files of this job's bundle."""
    return job.manifest is not None and any(file.digest in arrived for file in job.manifest.files)
