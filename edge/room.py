"""Room for content: the quota, the pins and the ranks that an operator signs, and what has to go for something new.

In a signed configuration `extra` holds `content.bytes_max` (bytes), `content.pin.NAME` (true) and `content.rank.NAME`
(a number, 100 by default). When a version needs room, leftovers and versions kept for going back go first, the lowest
rank first; then whole bundles of a lower rank than the newcomer's. What is pinned stays, and its way back with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from edge.installer import DiskFullError, Installed, Installer
from protocol.documents import Manifest
from protocol.errors import LocalError

log = structlog.get_logger("edge.room")

_PREFIX: Final = "content."
RANK: Final = 100


@dataclass(frozen=True, slots=True)
class ContentPolicy:
    """What holds of room; None: the truck's own file says how much there is."""

    bytes_max: int | None = None
    pinned: frozenset[str] = frozenset()
    ranks: Mapping[str, int] = field(default_factory=dict)

    def rank(self, name: str) -> int:
        """Return how much a bundle is wanted."""
        return self.ranks.get(name, RANK)


def content_policy(extra: Mapping[str, int | bool | str]) -> ContentPolicy:
    """Return the policy in a signed configuration; raise `LocalError` for a value that cannot be."""
    bytes_max: int | None = None
    pinned: set[str] = set()
    ranks: dict[str, int] = {}
    for key, value in extra.items():
        if not key.startswith(_PREFIX):
            continue
        what, _, name = key.removeprefix(_PREFIX).partition(".")
        if what == "bytes_max" and not name and type(value) is int and value > 0:
            bytes_max = value
        elif what == "pin" and name and isinstance(value, bool):
            pinned |= {name} if value else set()
        elif what == "rank" and name and type(value) is int:
            ranks[name] = value
        else:
            raise LocalError(f"{key}: content.bytes_max=BYTES, content.pin.NAME=true or content.rank.NAME=NUMBER")
    return ContentPolicy(bytes_max, frozenset(pinned), ranks)


def make_room(installer: Installer, manifest: Manifest, policy: ContentPolicy) -> tuple[str, ...]:
    """Evict until a version fits; return the bundles that went altogether. Blocks. Raises `DiskFullError`.

    Nothing goes unless that makes enough room.
    """
    if _fits(installer, manifest):
        return ()
    going = _candidates(installer, manifest, policy)
    possible = sum(_own_bytes(installer, each) for each in going)
    missing = installer.missing_bytes(manifest)
    if possible < missing:
        installer.check_room(manifest)  # says how much is wanted
        raise DiskFullError(f"{manifest.name} needs {missing} bytes more")
    gone = []
    for each in going:
        if each.active:
            installer.deactivate(each.name)
            gone.append(each.name)
        elif each.path.exists():
            installer.drop(each)
        log.warning("content.evicted", bundle=each.name, label=each.manifest.label, room_for=manifest.name)
        if _fits(installer, manifest):
            return tuple(gone)
    installer.check_room(manifest)
    return tuple(gone)


def _fits(installer: Installer, manifest: Manifest) -> bool:
    return installer.missing_bytes(manifest) <= 0


def _candidates(installer: Installer, manifest: Manifest, policy: ContentPolicy) -> list[Installed]:
    """Return what may go, in the order in which it goes."""
    installed = [each for each in installer.installed() if each.name not in policy.pinned]
    installed.sort(key=lambda each: policy.rank(each.name))
    trial = {each.name for each in installed if installer.on_trial(each.name) is not None}
    before = [each for each in installed if not each.active and each.name not in trial]
    mine = policy.rank(manifest.name)
    whole = [each for each in installed if each.active and each.name != manifest.name and policy.rank(each.name) < mine]
    return before + whole


def _own_bytes(installer: Installer, version: Installed) -> int:
    """Return the bytes that only this version holds: shared files are one file on the disk."""
    others = {f.digest for each in installer.installed() if each.path != version.path for f in each.manifest.files}
    return sum({f.digest: f.size for f in version.manifest.files if f.digest not in others}.values())
