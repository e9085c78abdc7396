"""To whom a backup is encrypted and who opens it: age recipients, identities and passphrases (age-encryption.org/v1).

Recipients are `age1...` and SSH public keys; identities are files as `age-keygen` writes them, the same encrypted with
a passphrase, and SSH private keys. A backup to a recipient streams; one to a passphrase the library holds in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import pyrage
from pyrage import passphrase as scrypt
from pyrage import ssh, x25519

from protocol.errors import LocalError

AGE_MAGIC: Final = b"age-encryption.org/v1\n"
PASSPHRASE_BYTES_MAX: Final = 256 << 20
_SCRYPT_STANZA: Final = b"-> scrypt "
_KEY_FILE_BYTES_MAX: Final = 64 << 10


class BackupKeyError(LocalError):
    """A recipient, identity or passphrase that cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Lock:
    """Whom a backup is for: recipients, or one passphrase."""

    recipients: tuple[str, ...] = ()
    passphrase: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if bool(self.recipients) == (self.passphrase is not None):
            raise BackupKeyError(
                "say who may open the backup: --recipient age1..., or --passphrase-file (make a key: digitruck-gateway "
                "backup-key FILE)"
            )
        for each in self.recipients:
            _recipient(each)

    def encrypt(self, source: BinaryIO, target: BinaryIO) -> None:
        """Encrypt all of `source` into `target`."""
        if self.passphrase is None:
            reader, writer = _Remembering(source), _Remembering(target)
            try:
                pyrage.encrypt_io(reader, writer, [_recipient(each) for each in self.recipients])
            except pyrage.EncryptError as error:
                raise reader.failure or writer.failure or error from None
            return
        plain = source.read()
        chunks = [plain]
        size = len(plain)
        while plain := source.read():
            chunks.append(plain)
            size += len(plain)
            if size > PASSPHRASE_BYTES_MAX:
                raise BackupKeyError(
                    f"with a passphrase a backup is held in memory: at most {PASSPHRASE_BYTES_MAX >> 20} MiB; "
                    "make a key instead (digitruck-gateway backup-key FILE), or go --without-blobs"
                )
        target.write(scrypt.encrypt(b"".join(chunks), self.passphrase))


@dataclass(frozen=True, slots=True)
class Unlock:
    """What opens a backup: identity files, a passphrase; `ask` is called for a passphrase that was not given."""

    identities: tuple[Path, ...] = ()
    passphrase: str | None = field(default=None, repr=False)
    ask: Callable[[str], str] | None = None

    def decrypt(self, source: BinaryIO, target: BinaryIO) -> None:
        """Decrypt `source` into `target`, which may have got a part when this raises `BackupKeyError`, `OSError`.

        What was cut off or changed is an `OSError` without a number ("decryption error").
        """
        head = source.read(4_096)
        source.seek(0)
        if _SCRYPT_STANZA in head[:256]:
            try:
                plain = scrypt.decrypt(source.read(2 * PASSPHRASE_BYTES_MAX), self._passphrase("the backup"))
            except pyrage.DecryptError as error:
                raise BackupKeyError("the passphrase does not open this backup, or it is damaged") from error
            target.write(plain)
            return
        if not self.identities:
            raise BackupKeyError("this backup is for a key: give its file with --identity")
        opened = [each for path in self.identities for each in self._identity(path)]
        try:
            pyrage.decrypt_io(source, target, opened)
        except pyrage.DecryptError as error:
            if "No matching keys" in str(error):
                raise BackupKeyError("none of the identities opens this backup: it is for another key") from error
            raise BackupKeyError(f"the backup's header is damaged: {error}") from error

    def _identity(self, path: Path) -> Sequence[x25519.Identity | ssh.Identity]:
        data = path.read_bytes()[:_KEY_FILE_BYTES_MAX]
        if data.startswith(AGE_MAGIC):
            try:
                data = scrypt.decrypt(data, self._passphrase(str(path)))
            except pyrage.DecryptError as error:
                raise BackupKeyError(f"the passphrase does not open {path}") from error
        try:
            if b"PRIVATE KEY-----" in data:
                return [ssh.Identity.from_buffer(data)]
            lines = [line.strip() for line in data.decode().splitlines()]
            found = [x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
        except (pyrage.IdentityError, UnicodeDecodeError, ValueError) as error:
            raise BackupKeyError(f"{path} is no identity of age, and no SSH key without a passphrase") from error
        if not found:
            raise BackupKeyError(f"{path} holds no identity")
        return found

    def _passphrase(self, of: str) -> str:
        if self.passphrase is not None:
            return self.passphrase
        if self.ask is None:
            raise BackupKeyError(f"{of} asks for a passphrase: give it with --passphrase-file")
        return self.ask(f"passphrase of {of}")


class _Remembering:
    """A file that keeps what went wrong with it: the library passes on only the words."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: Exception | None = None

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except Exception as error:
            self.failure = error
            raise

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except Exception as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._file.flush()


def new_identity(passphrase: str | None) -> tuple[bytes, str]:
    """Return the file of a new identity, encrypted if a passphrase is given, and its recipient."""
    identity = x25519.Identity.generate()
    recipient = str(identity.to_public())
    text = f"# public key: {recipient}\n{identity}\n".encode()
    return (text if passphrase is None else scrypt.encrypt(text, passphrase)), recipient


def read_passphrase(path: Path) -> str:
    """Return the first line of a file."""
    with open(path, encoding="utf-8") as file:
        line = file.readline(4_096).rstrip("\r\n")
    if len(line) < 12:
        raise BackupKeyError(f"{path}: a passphrase of fewer than 12 characters protects nothing")
    return line


def _recipient(text: str) -> x25519.Recipient | ssh.Recipient:
    try:
        return ssh.Recipient.from_str(text) if text.startswith("ssh-") else x25519.Recipient.from_str(text)
    except (pyrage.RecipientError, ValueError) as error:
        raise BackupKeyError(f"{text[:40]!r} is no recipient: age1... or an SSH public key") from error
