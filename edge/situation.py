"""How the truck does, put together for people and scripts: status page, `GET /v1/status`, `digitruck-edge status`."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from edge.believed import expired
from edge.pages import ServedBundle
from edge.reasons import describe, explain, format_money
from edge.status import (
    ClockStatus,
    CollectorStatus,
    DeviceStatus,
    DiskStatus,
    EdgeStatus,
    LinkStatus,
    QueueStatus,
    VersionStatus,
    WaitStatus,
)
from protocol.documents import Manifest, parse_document
from protocol.errors import PeerError
from protocol.numbers import PIECE_BYTES, Precedence
from store.parcels import ParcelState

if TYPE_CHECKING:
    from edge.daemon import Edge
    from edge.installer import Installed
    from edge.link import Link

# A snapshot costs a look at every parcel and manifest: it is taken when something has changed, or has had time to.
_REFRESH_S, _IDLE_REFRESH_S = 2.0, 60.0
_MB = 1_000_000


class Situation:
    """A snapshot that is taken soon after something changed; asking for it never waits."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._queues: tuple[QueueStatus, ...] = ()
        self._installed: tuple[Installed, ...] = ()
        self._places: dict[bytes, Path] | None = None  # made when another truck asks
        self._state_bytes = 0
        self._free_bytes = 0
        self._expired: tuple[str, ...] = ()
        self._changed = asyncio.Event()

    def touch(self) -> None:
        """Hear that something changed."""
        self._changed.set()

    async def run(self) -> None:
        """Keep the snapshot fresh, until cancelled."""
        while True:
            self._changed.clear()
            await self.refresh()
            await asyncio.sleep(_REFRESH_S)
            try:
                async with asyncio.timeout(_IDLE_REFRESH_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def refresh(self) -> None:
        """Take the snapshot."""
        edge = self._edge
        counts = await edge.writer.run(edge.queue.counts)
        self._queues = tuple(
            QueueStatus(each.precedence.name.lower(), each.parcels, each.sealed_bytes)
            for each in counts
            if each.state is ParcelState.QUEUED
        )
        self._state_bytes = await edge.writer.run(edge.state.used_bytes)
        self._installed = await asyncio.to_thread(edge.installer.installed)
        self._places = None
        self._expired = await edge.writer.run(lambda: expired(edge.documents, edge.trust, edge.clock.at_least_s()))
        self._free_bytes = (await asyncio.to_thread(shutil.disk_usage, edge.installer.root)).free

    def status(self) -> EdgeStatus:
        """Return how the truck does."""
        edge = self._edge
        now = edge.clock.monotonic()
        ages = [now - link.last_contact for link in edge.links if link.last_contact is not None]
        return EdgeStatus(
            truck=edge.enrolment.truck,
            queues=self._queues,
            links=tuple(self._link(link.name) for link in edge.links),
            versions=self._versions(),
            clock=ClockStatus(edge.clock.state, edge.clock.wall_s()),
            disk=DiskStatus(
                state_bytes=self._state_bytes,
                state_bytes_max=edge.config.state_mb_max * _MB,
                content_bytes=sum(file.size for each in self._installed for file in each.manifest.files),
                content_bytes_max=edge.config.content_mb_max * _MB,
                free_bytes=self._free_bytes,
            ),
            last_contact_age_s=min(ages, default=None),
            collectors=tuple(
                CollectorStatus(
                    each.name, each.rows, None if each.last_row_s is None else now - each.last_row_s, each.last_error
                )
                for each in edge.health()
            ),
            expired=self._expired,
        )

    def active(self, name: str) -> Path | None:
        """Return the folder of the bundle's active version, None if there is none."""
        return self._edge.installer.active_folder(name)

    def bundles(self) -> list[ServedBundle]:
        """Return the bundles whose active version can be served."""
        return [
            ServedBundle(each.name, each.manifest.label, each.manifest.title, sum(f.size for f in each.manifest.files))
            for each in self._installed
            if each.active
        ]

    def by_digest(self, digest: bytes) -> Path | None:
        """Return the file of this SHA-256 that an installed bundle holds, None if none does."""
        if self._places is None:
            self._places = {
                file.digest: each.path / file.path for each in self._installed for file in each.manifest.files
            }
        return self._places.get(digest)

    def _link(self, name: str) -> LinkStatus:
        edge = self._edge
        link = next(each for each in edge.links if each.name == name)
        budget, tariff = edge.budgets[name], edge.budgets[name].terms.tariff
        span, contact, wall_s = budget.span(), link.last_contact, edge.clock.wall_s()
        left = edge.ledger.left(name, Precedence.FLASH, period=budget.period())
        waits = tuple(
            WaitStatus(each.precedence.name.lower(), str(each.reason), explain(each, tariff, wall_s), each.until_s)
            for each in (edge.uplink.why(link, precedence) for precedence in Precedence)
            if each is not None
        )
        return LinkStatus(
            name=name,
            usable=link.usable if contact is not None or not link.usable else None,
            spent_bytes=edge.ledger.booked(name),
            budget_bytes=edge.ledger.cap_bytes(name),
            left_bytes=left,
            rtt_s=link.rtt_s,
            loss=link.loss,
            last_contact_age_s=None if contact is None else edge.clock.monotonic() - contact,
            tariff=describe(tariff),
            spent_money=format_money(edge.ledger.booked_nano(name), tariff.currency),
            left_normal_bytes=budget.left_bytes(Precedence.NORMAL),
            period_ends_s=None if span is None else span.ends_s,
            waits=waits,
            note=waits[0].text if waits else "",
            device=_device(link),
            rate_bps=link.bursts.pace.rate_bps,
            falls=round(link.falls, 1),
        )

    def _versions(self) -> tuple[VersionStatus, ...]:
        edge = self._edge
        wanted = edge.wanted
        versions = []
        if wanted.config is not None or edge.configurator.applied_version is not None:
            desired = str(wanted.config[1].version) if wanted.config is not None else None
            applied = edge.configurator.applied_version
            versions.append(VersionStatus("config", desired, None if applied is None else str(applied)))
        labels = {each.name: each.manifest.label for each in self._installed if each.active}
        progress = edge.bundles.progress()
        for rollout in wanted.rollouts:
            label = _label(wanted.manifests.get(rollout.manifest or b""))
            received = whole = 0
            if progress is not None and progress.bundle == rollout.bundle:
                whole = progress.pieces * PIECE_BYTES
                received = whole - progress.pieces_left * PIECE_BYTES
            versions.append(VersionStatus(rollout.bundle, label, labels.get(rollout.bundle), received, whole))
        return tuple(versions)


def _device(link: Link) -> DeviceStatus | None:
    name, found = link.settings.interface, link.device
    if name is None:
        return None
    if found is None:
        return DeviceStatus(name, state="is not there" if link.is_watched else "")
    unpaid = found.looks_metered and not link.settings.metered
    note = "looks metered, but metered = false: check [[link]] in edge.toml" if unpaid else ""
    return DeviceStatus(name, found.kind, found.why_not, found.mtu_bytes, found.addresses, note)


def _label(signed: bytes | None) -> str | None:
    if signed is None:
        return None
    try:
        return parse_document(signed, Manifest)[0].label
    except PeerError:
        return None
