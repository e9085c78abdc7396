"""What a rollout asks of this truck's content, and how far a download of it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from protocol import cose
from protocol.documents import Manifest, Rollout
from protocol.messages import Receipt
from protocol.numbers import DocumentKind, Outcome


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


def receipt_of(job: Job, outcome: Outcome, reason: str, time_ms: int) -> Receipt:
    """Return the receipt for what became of a job."""
    if job.manifest is None:
        document, digest, version = DocumentKind.ROLLOUT, bytes(32), job.rollout.version
    else:
        document, digest, version = DocumentKind.MANIFEST, cose.digest(job.signed), job.manifest.version
    return Receipt(
        document=document,
        digest=digest,
        outcome=outcome,
        name=job.rollout.bundle,
        version=version,
        reason=reason[:200],
        time_ms=time_ms,
    )


async def first_of(seconds: float, *events: asyncio.Event) -> None:
    """Wait for the first of some events, or so many seconds."""
    waits = [asyncio.create_task(each.wait()) for each in events]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for each in waits:
        each.cancel()
