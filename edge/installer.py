"""Bundles on the truck's disk: built beside the active one, verified file by file, activated by one rename.

    content/NAME/versions/DIGEST/      the files of one manifest, read-only from then on
    content/NAME/versions/DIGEST.cose  its signed manifest, written last: without it the folder is a leftover
    content/NAME/active                a symbolic link to versions/DIGEST: the one pointer

A file that is held already (in any bundle) is linked, not written again. The version before stays for rollback.
Everything here blocks: call it from a thread, and what changes something from one thread at a time.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from edge.inbox import Inbox
from edge.unpacking import unpack
from protocol import cose
from protocol.documents import Manifest, ManifestFile, parse_document
from protocol.errors import LocalError, MalformedError, PeerError
from protocol.numbers import NAME_PATTERN
from protocol.pack import wanted_files
from store.files import TEMPORARY_PREFIX, publish, sync_folder

log = structlog.get_logger("edge.installer")

_NAME = re.compile(NAME_PATTERN)

_DISK_KEPT_FREE = 64 << 20
INBOX = ".inbox"
_TRIAL, _UNFIT = "trial", "unfit"


class DiskFullError(LocalError):
    """There is no room for this bundle; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Installed:
    """One version of a bundle on this truck."""

    name: str
    digest: bytes
    manifest: Manifest
    path: Path
    active: bool


class Installer:
    """The bundles under one folder."""

    def __init__(self, root: Path, *, bytes_max: int) -> None:
        """Look at the bundles under `root`; nothing is changed before `clean` or `install`."""
        self.root = root
        self.inbox = Inbox(root / INBOX)
        self.bytes_max = bytes_max

    def clean(self) -> None:
        """Delete what an interrupted installation left; call it at start."""
        self.root.mkdir(parents=True, exist_ok=True)
        for leftover in self.root.glob("*/versions/*.building"):
            shutil.rmtree(leftover, ignore_errors=True)
        for leftover in self.root.glob(f"*/versions/{TEMPORARY_PREFIX}*"):
            leftover.unlink()
        for folder in self.root.glob("*/versions/*/"):
            if not folder.with_name(folder.name + ".cose").exists():
                shutil.rmtree(folder, ignore_errors=True)

    def installed(self) -> tuple[Installed, ...]:
        """Return every whole version, by bundle name and then digest."""
        # Not those that a power cut left half-way to their name.
        records = sorted(self.root.glob("*/versions/[0-9a-f]*.cose"))
        return tuple(each for path in records if (each := self._read(path)) is not None)

    def active(self, name: str) -> Installed | None:
        """Return the active version of a bundle, or None."""
        return next((each for each in self.installed() if each.name == name and each.active), None)

    def active_folder(self, name: str) -> Path | None:
        """Return the folder of the active version by its pointer alone, None if there is none: for each request."""
        digest = self._pointer(self.root / name) if _NAME.match(name) else None
        if digest is None or not (self.root / name / "versions" / f"{digest}.cose").exists():
            return None
        return self.root / name / "versions" / digest

    def held(self) -> dict[bytes, Path]:
        """Return where the contents of each digest can be found; they are hashed again before they are used."""
        versions = {file.digest: each.path / file.path for each in self.installed() for file in each.manifest.files}
        return self.inbox.places() | versions

    def install(self, manifest: Manifest, signed: bytes, pack: Path | None, *, assumed: Sequence[bytes]) -> Installed:
        """Build one version from held files and a pack, verify every byte of it, and make it durable; not yet active.

        `assumed` are the digests that the pack was made against, as `list_held` gives them. Raises `MalformedError`
        for a pack that does not lead to the manifest, `DiskFullError`; then nothing is left behind.
        """
        digest = cose.digest(signed)
        versions = self.root / manifest.name / "versions"
        final = versions / digest.hex()
        record = versions / f"{digest.hex()}.cose"
        if record.exists():
            return self._require(record)
        self.check_room(manifest)
        versions.mkdir(parents=True, exist_ok=True)
        building = versions / f"{digest.hex()}.building"
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)
        building.mkdir()
        try:
            self._build(manifest, building, pack, assumed)
            _sync_tree(building)
            building.rename(final)
            sync_folder(versions)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        publish(record, signed)
        self.inbox.forget(file.digest for file in manifest.files)
        log.info("bundle.installed", bundle=manifest.name, label=manifest.label, files=len(manifest.files))
        return self._require(record)

    def missing_bytes(self, manifest: Manifest) -> int:
        """Return how many bytes are short for the files of a version that are not held yet; 0 or less: they fit."""
        size, left = self._needed(manifest)
        return size - left

    def check_room(self, manifest: Manifest) -> None:
        """Raise `DiskFullError` unless the files of a version that are not held yet fit the disk and the share."""
        size, left = self._needed(manifest)
        if size > left:
            raise DiskFullError(f"{manifest.name} needs {size} bytes more; {max(0, left)} are left for content")

    def _needed(self, manifest: Manifest) -> tuple[int, int]:
        held = {file.digest: file.size for each in self.installed() for file in each.manifest.files}
        held |= self.inbox.sizes()
        size = sum({file.digest: file.size for file in manifest.files if file.digest not in held}.values())
        self.root.mkdir(parents=True, exist_ok=True)
        return size, min(shutil.disk_usage(self.root).free - _DISK_KEPT_FREE, self.bytes_max - sum(held.values()))

    def activate(self, name: str, digest: bytes) -> None:
        """Make an installed version the active one: one atomic rename; older ones than the last good go."""
        folder = self.root / name
        if not (folder / "versions" / f"{digest.hex()}.cose").exists():
            raise LocalError(f"{name} {digest.hex()[:12]} is not installed")
        before = self._pointer(folder)
        if before == digest.hex():
            return  # said twice: the version to go back to stays
        self._point(folder, digest)
        keep = {digest.hex(), before}
        for each in (folder / "versions").glob("*.cose"):
            if each.stem not in keep:
                self._drop(each)

    def try_out(self, name: str, digest: bytes) -> None:
        """Activate a version on trial: until `keep` is called it is not known to be fit, over restarts too."""
        if self._pointer(self.root / name) != digest.hex():
            publish(self.root / name / _TRIAL, digest.hex().encode())
        self.activate(name, digest)

    def on_trial(self, name: str) -> bytes | None:
        """Return the active version if it is still on trial."""
        return self._noted(name, _TRIAL) if self._pointer(self.root / name) is not None else None

    def keep(self, name: str) -> None:
        """End a trial well."""
        (self.root / name / _TRIAL).unlink(missing_ok=True)
        sync_folder(self.root / name)

    def roll_back(self, name: str, digest: bytes, rollout: int) -> str | None:
        """End a trial badly: back to the last good version, or to none; return its label.

        The version is not tried again until another rollout asks for it.
        """
        folder = self.root / name
        publish(folder / _UNFIT, f"{digest.hex()} {rollout}".encode())
        good = next((each for each in self.installed() if each.name == name and each.digest != digest), None)
        if good is not None:
            self._point(folder, good.digest)
        else:
            (folder / "active").unlink(missing_ok=True)
            sync_folder(folder)
        self.keep(name)
        return None if good is None else good.manifest.label

    def is_unfit(self, name: str, digest: bytes, rollout: int) -> bool:
        """Return whether this version was rolled back under this rollout."""
        try:
            return (self.root / name / _UNFIT).read_text() == f"{digest.hex()} {rollout}"
        except (OSError, UnicodeDecodeError):
            return False

    def _noted(self, name: str, file: str) -> bytes | None:
        try:
            noted = bytes.fromhex((self.root / name / file).read_text())
        except (OSError, ValueError):
            return None
        return noted if self._pointer(self.root / name) == noted.hex() else None

    @staticmethod
    def _point(folder: Path, digest: bytes) -> None:
        pointer = folder / "active.new"
        pointer.unlink(missing_ok=True)
        pointer.symlink_to(f"versions/{digest.hex()}")
        pointer.replace(folder / "active")
        sync_folder(folder)

    def deactivate(self, name: str) -> None:
        """Take a bundle away altogether."""
        folder = self.root / name
        (folder / "active").unlink(missing_ok=True)
        if folder.exists():
            sync_folder(folder)
            shutil.rmtree(folder, ignore_errors=True)

    def scrub(self) -> tuple[str, ...]:
        """Hash every file again; return the paths (below the folder) whose bytes are not what was signed."""
        return tuple(
            str((each.path / file.path).relative_to(self.root))
            for each in self.installed()
            for file in each.manifest.files
            if not _matches(each.path / file.path, file)
        )

    def drop(self, version: Installed) -> None:
        """Delete a version that is not active."""
        self._drop(version.path.with_name(version.path.name + ".cose"))

    def _build(self, manifest: Manifest, building: Path, pack: Path | None, assumed: Sequence[bytes]) -> None:
        held = self.held()
        done: dict[bytes, Path] = {}
        wanted = wanted_files(manifest, assumed)
        if wanted:
            if pack is None:
                raise MalformedError("files are wanted and there is no pack")
            with pack.open("rb") as stream:
                unpack(stream, wanted, building, assumed=assumed, places=held)
            done = {file.digest: building / file.path for file in wanted}
        for file in manifest.files:
            path = building / file.path
            if done.get(file.digest) == path:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            source = done.get(file.digest) or held.get(file.digest)
            if file.size == 0:
                path.touch()
            elif source is None or not _matches(source, file):
                raise MalformedError(f"{file.path} was meant to be held and is not, or it has rotted")
            else:
                os.link(source, path)
            done.setdefault(file.digest, path)

    def _read(self, record: Path) -> Installed | None:
        try:
            signed = record.read_bytes()
            manifest, _ = parse_document(signed, Manifest)
        except (OSError, PeerError) as error:
            log.error("bundle.unreadable", path=record.name, reason=str(error))
            return None
        folder = record.parent.parent
        active = self._pointer(folder) == record.stem
        return Installed(manifest.name, cose.digest(signed), manifest, record.with_suffix(""), active)

    def _require(self, record: Path) -> Installed:
        found = self._read(record)
        if found is None:
            raise LocalError(f"{record.name} cannot be read back")
        return found

    @staticmethod
    def _pointer(folder: Path) -> str | None:
        try:
            return Path(os.readlink(folder / "active")).name
        except OSError:
            return None

    @staticmethod
    def _drop(record: Path) -> None:
        record.unlink()
        sync_folder(record.parent)
        shutil.rmtree(record.with_suffix(""), ignore_errors=True)


def _matches(path: Path, file: ManifestFile) -> bool:
    try:
        if path.stat().st_size != file.size:
            return False
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest() == file.digest
    except OSError:
        return False


def _sync_tree(folder: Path) -> None:
    for current, _, files in os.walk(folder, topdown=False):
        for name in files:
            descriptor = os.open(os.path.join(current, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(current))
