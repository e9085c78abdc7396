"""Errors of the durable store: what a caller can do about each is in its docstring."""

from __future__ import annotations

from protocol.errors import LocalError, PeerError


class StoreError(LocalError):
    """The store could not do what was asked; nothing was changed."""


class StoreInUseError(StoreError):
    """Another process has this database open for writing: stop it first, or read with `open_reader`."""


class SchemaTooNewError(StoreError):
    """The database was written by a newer version of this software: install that one, or start with another file."""


class StoreFailedError(StoreError):
    """The database could not be opened again after a failure: restart the daemon."""


class CommitUnknownError(StoreError):
    """COMMIT failed, so the change may or may not be on the disk: do it again under the same id."""


class ContextGoneError(StoreError):
    """The OSCORE context was dropped or replaced: send nothing under it, run EDHOC."""


class QuotaExceededError(StoreError):
    """A download is larger than its share of the disk."""


class DigestMismatchError(PeerError):
    """The bytes do not have the SHA-256 that names them; they were discarded."""
