"""A backup put back: everything is decrypted and checked beside the present state before any of that is touched.

Blobs come first, since they only add; then keys and configuration; the database last, in one rename: a restore that was
cut off is run again. A file that is wrong, damaged, cut off or too new changes nothing, nor does a disk that is full.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.agekeys import Unlock
from gateway.backup import CONFIG, Contents, Progress
from gateway.config import GatewayConfig, load_config, parse_config
from gateway.daemon import database_url, folder_lock
from gateway.unpacking import Unpacked, unpack
from protocol.errors import LocalError
from store.asides import next_aside, prune_asides
from store.blobs import BlobStore
from store.files import publish
from store.fleet.fleet import FleetStore, migrate
from store.fleet.records import ScrubReport
from store.fleet.restore import KEPT_WORD, Carried, carry, check_copy, heard_ms, swap


@dataclass(frozen=True, slots=True)
class Checked:
    """What a backup holds and how sound it is."""

    contents: Contents
    rotten_blobs: tuple[str, ...]
    scrub: ScrubReport | None


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. `carried` is None when there was no readable database to replace."""

    contents: Contents
    database_kept_as: Path | None
    keys_kept_as: Path | None
    carried: Carried | None
    codes_void: int
    rotten_blobs: tuple[str, ...]
    has_keys: bool


def check_backup(file: Path, unlock: Unlock, stage: Path, on_progress: Progress = lambda done, total: None) -> Checked:
    """Open a backup whole, below `stage`, and hash everything in it again; raise what a restore would."""
    with _staging(stage):
        unpacked = unpack(file, unlock, stage, lambda digest, size: False, on_progress)
        scrub = None
        if unpacked.database is not None:
            _make_usable(unpacked.database)
            scrub = asyncio.run(_scrub(unpacked.database))
        return Checked(unpacked.contents, tuple(unpacked.rotten), scrub)


def restore_backup(
    file: Path,
    unlock: Unlock,
    config: Path,
    *,
    now_ms: int,
    confirm: Callable[[Contents, int | None], None],
    on_progress: Progress = lambda done, total: None,
) -> Restored:
    """Restore a backup to where `config` says, or where the backup's own configuration does if there is none there.

    `confirm` hears when the present database last heard a truck (Unix ms; None: there is none), and raises to end it.
    """
    config.parent.mkdir(parents=True, exist_ok=True)
    data = (config.parent / load_config(config).data).resolve() if config.exists() else config.parent.resolve()
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = folder_lock(data)
    lock.take()
    try:
        with _staging(data / ".restore"):
            blobs = BlobStore(data / "blobs")
            unpacked = unpack(
                file, unlock, data / ".restore", lambda digest, size: blobs.size(digest) == size, on_progress
            )
            settings = load_config(config) if config.exists() else parse_config(unpacked.config, f"{file}: {CONFIG}")
            if (config.parent / settings.data).resolve() != data:
                raise LocalError(f"the backup's configuration keeps data in {settings.data}: put it at {config} first")
            return _put_back(unpacked, config, settings, data, blobs, now_ms, confirm)
    finally:
        lock.release()


def _put_back(
    unpacked: Unpacked,
    config: Path,
    settings: GatewayConfig,
    data: Path,
    blobs: BlobStore,
    now_ms: int,
    confirm: Callable[[Contents, int | None], None],
) -> Restored:
    url = database_url(settings, data)
    place = Path(url.partition("///")[2]) if url.startswith("sqlite") else None
    if (place is None) != (unpacked.database is None):
        raise LocalError(
            f"the backup is of a gateway on {unpacked.contents.database}, and [database] in {config} is another kind"
        )
    confirm(unpacked.contents, heard_ms(place) if place is not None and place.exists() else None)
    carried, voided = None, 0
    if unpacked.database is not None and place is not None:
        _make_usable(unpacked.database)
        carried = carry(place, unpacked.database) if place.exists() else None
        voided = asyncio.run(_settle(f"sqlite:///{unpacked.database}", unpacked.contents, carried, now_ms))
    else:
        voided = asyncio.run(_settle(url, unpacked.contents, None, now_ms))
    for digest, path in unpacked.blobs.items():
        blobs.adopt(digest, path)
    keys_kept_as = _put_keys(unpacked.keys, data / "keys")
    if not config.exists():
        publish(config, unpacked.config.encode())
    kept_as = None
    if unpacked.database is not None and place is not None:
        kept_as = swap(_beside(unpacked.database, place), place)
    has_keys = bool(unpacked.keys) or (data / "keys" / "edhoc.key").exists()
    return Restored(
        unpacked.contents, kept_as, keys_kept_as, carried, voided, tuple(unpacked.rotten), has_keys=has_keys
    )


def _beside(database: Path, place: Path) -> Path:
    """Return the staged database on the file system of the place that it is for."""
    if database.stat().st_dev == place.parent.stat().st_dev:
        return database
    return Path(shutil.copy(database, place.with_name(f"{place.name}.restoring")))


def _make_usable(database: Path) -> None:
    """Check a staged database and bring it to this release's schema."""
    check_copy(database)
    asyncio.run(migrate(f"sqlite:///{database}"))


async def _scrub(database: Path) -> ScrubReport:
    fleet = await FleetStore.open(f"sqlite:///{database}")
    try:
        return await fleet.scrub()
    finally:
        await fleet.close()


async def _settle(url: str, contents: Contents, carried: Carried | None, now_ms: int) -> int:
    detail: dict[str, str | int | None] = {"made_ms": contents.made_ms}
    if carried is not None:
        # Whoever noted the head of the chain that is replaced finds here where it went.
        detail |= {"replaced_entries": carried.audit_rows, "replaced_head": carried.audit_head.hex()}
    fleet = await FleetStore.open(url)
    try:
        return await fleet.settle_restored(detail, now_ms, void_tokens=carried is None)
    finally:
        await fleet.close()


def _put_keys(keys: dict[str, bytes], folder: Path) -> Path | None:
    """Write the keys of a backup; return where other ones of the same names were kept, None if there were none."""
    changed = {name: key for name, key in keys.items() if _content(folder / name) != key}
    kept = None
    if any((folder / name).exists() for name in changed):
        kept = next_aside(folder, KEPT_WORD)
        shutil.copytree(folder, kept)
        prune_asides(folder, KEPT_WORD, bytes_max=1 << 20)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, key in changed.items():
        publish(folder / name, key)
    return kept


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


@contextmanager
def _staging(stage: Path) -> Iterator[None]:
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(mode=0o700)
    try:
        yield
    finally:
        shutil.rmtree(stage, ignore_errors=True)
