"""A private key at rest: a file for its owner only, or a systemd credential (`store.credentials` moves one there).

A credential (systemd.exec(5), CREDENTIALS) is decrypted by the service manager, with the TPM where there is one, into
memory that is never swapped; the disk holds it sealed. A file counts first: it is there before it is sealed, and again
after a truck joined anew or a gateway was restored. A file that others may read or write is closed to them and that is
said, since a daemon that nobody can drive to must not stop for it. Deliberately absent: encryption of our own, whose
key would lie beside it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import structlog

from protocol.errors import LocalError

log = structlog.get_logger("store.keyfiles")

# Where the service manager puts the credentials of a service.
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
_KEY_BYTES_MAX = 4_096


class KeyMissingError(LocalError):
    """There is neither a credential nor a file of this key."""


class KeyUnreadableError(LocalError):
    """The key is there but cannot be used; the message says why and what to do."""


def credential_path(credential: str) -> Path | None:
    """Return where the service manager has put a credential for this process, None when it has not."""
    folder = os.environ.get(CREDENTIALS_VARIABLE)
    path = Path(folder) / credential if folder else None
    return path if path is not None and path.exists() else None


def has_key(path: Path, credential: str) -> bool:
    """Return whether the key is there, as a file or as a credential."""
    return path.exists() or credential_path(credential) is not None


def read_key(path: Path, credential: str, size: int) -> bytes:
    """Return the key's `size` bytes; raise `KeyMissingError` or `KeyUnreadableError`."""
    data = read_key_file(path, credential)
    if len(data) != size:
        raise KeyUnreadableError(f"{path} is damaged: it has {len(data)} bytes and not {size}")
    return data


def read_key_file(path: Path, credential: str) -> bytes:
    """Return what the file or the credential holds; raise as `read_key`."""
    place = None if path.exists() else credential_path(credential)
    return _read_file(path) if place is None else place.read_bytes()


def _read_file(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise KeyMissingError(f"{path}: there is no such key") from error
    except PermissionError as error:
        raise KeyUnreadableError(f"{path} is not this user's: {_chown(path)}") from error
    # The open file is checked and repaired, so that what was checked is what is read.
    with open(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise KeyUnreadableError(f"{path} is not a regular file")
        if os.geteuid() not in (state.st_uid, 0):
            raise KeyUnreadableError(f"{path} belongs to another user: {_chown(path)}")
        if state.st_mode & 0o077:
            _close_to_others(descriptor, path, stat.S_IMODE(state.st_mode))
        return file.read(_KEY_BYTES_MAX)


def _close_to_others(descriptor: int, path: Path, mode: int) -> None:
    try:
        os.fchmod(descriptor, 0o600)
    except OSError as error:
        raise KeyUnreadableError(f"{path} can be read by others (mode {mode:03o}): chmod 600 {path}") from error
    log.warning(
        "key.mode_repaired", path=str(path), mode=f"{mode:03o}", advice="if others may have read it, replace it"
    )


def _chown(path: Path) -> str:
    return f"chown it to the user that the daemon runs as (now uid {os.geteuid()}), e.g. chown digitruck {path}"
