"""A person's signing keys on that person's own machine: one 0600 file a key, never sent anywhere.

`NAME.key` is the private key, `NAME.pub` the one line that others are given. Public lines of other people lie in the
same folder, so that a plan or a signature can be told by a person's name instead of 64 hexadecimal digits.
Deliberately absent: passphrases (the disk's encryption or a systemd credential does that), and any network.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from protocol import cose
from protocol.errors import LocalError, MalformedError
from protocol.numbers import NAME_PATTERN, PUBLIC_KEY_BYTES

_KEY_FILE_BYTES_MAX = 4_096
_LINE_PREFIX = "digitruck-key"
_NAME = re.compile(NAME_PATTERN)


class KeystoreError(LocalError):
    """A key that cannot be made, found or trusted; the message says what to do."""


class KeyRole(StrEnum):
    """What a person's key is for; the delegation decides, this keeps people from mixing keys up."""

    ROOT = "root"
    OPERATOR = "operator"
    PUBLISHER = "publisher"


@dataclass(frozen=True, slots=True)
class PublicLine:
    """A public key with the name and the role that its owner gave it: what others are handed."""

    name: str
    role: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The 8-byte key id."""
        return cose.key_id(self.public)

    def text(self) -> str:
        """Return the line as it stands in a `.pub` file."""
        return f"{_LINE_PREFIX} {self.role} {self.name} {self.public.hex()}"


@dataclass(frozen=True, slots=True)
class PersonalKey:
    """A private key of this machine's person."""

    name: str
    role: KeyRole
    signing: cose.SigningKey

    @property
    def line(self) -> PublicLine:
        """The public half."""
        return PublicLine(self.name, self.role, self.signing.public)


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    role: KeyRole
    public: str
    seed: str


def read_public_line(text: str) -> PublicLine:
    """Return the public key in one `.pub` line; raise `MalformedError`."""
    parts = text.split()
    if len(parts) != 4 or parts[0] != _LINE_PREFIX or not _NAME.fullmatch(parts[2]):
        raise MalformedError(f"a public key is one line: {_LINE_PREFIX} ROLE NAME HEX")
    return PublicLine(parts[2], parts[1], read_public_hex(parts[3]))


def read_public_hex(text: str) -> bytes:
    """Return the 32 bytes of a public key written as 64 hexadecimal digits; raise `MalformedError`."""
    if not re.fullmatch(rf"[0-9a-fA-F]{{{2 * PUBLIC_KEY_BYTES}}}", text):
        raise MalformedError(f"a public key has {2 * PUBLIC_KEY_BYTES} hexadecimal digits")
    return bytes.fromhex(text)


class Keystore:
    """The folder of keys; it is made (0700) when the first key is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new(self, name: str, role: KeyRole, seed: bytes) -> PersonalKey:
        """Keep a new private key made of 32 bytes of entropy; raise `KeystoreError` if the name is taken."""
        if not _NAME.fullmatch(name):
            raise KeystoreError(f"{name!r} is not a key name: a-z, 0-9 and -, at most 31, e.g. asha-laptop")
        private, public = self._private(name), self._public(name)
        if public.exists():
            raise KeystoreError(f"{public} is already there: choose another name")
        key = PersonalKey(name, role, cose.SigningKey(seed))
        self._make_folder()
        text = (
            "# Whoever has this file can sign as you. It is never sent; keep a copy offline.\n"
            f'name = "{name}"\nrole = "{role}"\npublic = "{key.signing.public.hex()}"\nseed = "{seed.hex()}"\n'
        )
        try:
            _write_new(private, text.encode(), mode=0o600)
        except FileExistsError:
            raise KeystoreError(f"{private} is already there: choose another name") from None
        _write_new(public, (key.line.text() + "\n").encode(), mode=0o644)
        return key

    def load(self, name: str) -> PersonalKey:
        """Return a private key by its name or its file; raise `KeystoreError` if others could read or swap it."""
        path = Path(name) if "/" in name or name.endswith(".key") else self._private(name)
        try:
            text = _read_private(path)
        except FileNotFoundError:
            known = ", ".join(each.name for each in self.mine()) or "none yet"
            raise KeystoreError(f"no key {name!r} here (there are: {known}); make one: digitruck key new") from None
        except OSError as error:
            raise KeystoreError(f"{path} cannot be read: {error.strerror}") from error
        try:
            file = msgspec.toml.decode(text, type=_KeyFile)
            signing = cose.SigningKey(bytes.fromhex(file.seed))
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise KeystoreError(f"{path} is damaged: restore it from your copy") from error
        if signing.public.hex() != file.public:
            raise KeystoreError(f"{path} is damaged (its two halves differ): restore it from your copy")
        return PersonalKey(file.name, file.role, signing)

    def mine(self) -> list[PersonalKey]:
        """Return the private keys here, by name."""
        return [self.load(path.stem) for path in sorted(self.folder.glob("*.key"))]

    def people(self) -> dict[bytes, PublicLine]:
        """Return every public key here, one's own and others', by its 32 bytes."""
        found: dict[bytes, PublicLine] = {}
        for path in sorted(self.folder.glob("*.pub")):
            with contextlib.suppress(MalformedError, OSError, UnicodeDecodeError):
                line = read_public_line(path.read_text()[:_KEY_FILE_BYTES_MAX])
                found[line.public] = line
        return found

    def add(self, line: PublicLine) -> Path:
        """Keep another person's public key; raise `KeystoreError` if the name stands for another key already."""
        path = self._public(line.name)
        self._make_folder()
        try:
            _write_new(path, (line.text() + "\n").encode(), mode=0o644)
        except FileExistsError:
            if self.public(str(path)).public != line.public:
                raise KeystoreError(f"{line.name} is the name of another key here: {path}") from None
        return path

    def public(self, reference: str) -> PublicLine:
        """Return the public key that a name here, a `.pub` file or 64 hexadecimal digits stand for."""
        if re.fullmatch(r"[0-9a-fA-F]{64}", reference):
            public = read_public_hex(reference)
            return self.people().get(public) or PublicLine(public.hex()[:8], "unknown", public)
        path = Path(reference) if "/" in reference or reference.endswith(".pub") else self._public(reference)
        try:
            return read_public_line(path.read_text()[:_KEY_FILE_BYTES_MAX])
        except FileNotFoundError:
            raise KeystoreError(
                f"no public key {reference!r}: give a name from `digitruck key show`, a .pub file or 64 hex digits"
            ) from None
        except (MalformedError, UnicodeDecodeError, OSError) as error:
            raise KeystoreError(f"{path}: {error}") from error

    def _private(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def _public(self, name: str) -> Path:
        return self.folder / f"{name}.pub"

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _read_private(path: Path) -> bytes:
    # O_NOFOLLOW and the checks on the open file: what was checked is what is read.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise KeystoreError(f"{path} is not a regular file")
        if state.st_mode & 0o077:
            raise KeystoreError(f"{path} can be read by others: chmod 600 it, and make a new key if they did")
        if state.st_uid != os.geteuid():
            raise KeystoreError(f"{path} belongs to another user")
        return file.read(_KEY_FILE_BYTES_MAX)


def _write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that must not exist yet, with its mode from the first instant, durable when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    with _open_folder(path.parent) as folder:
        os.fsync(folder)


@contextlib.contextmanager
def _open_folder(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
