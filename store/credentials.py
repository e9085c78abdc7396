"""Moving private keys from files into encrypted systemd credentials, bound to this machine and its TPM if it has one.

`systemd-creds` (systemd 250 or newer) does the encryption; the service manager decrypts at start, by the drop-in that
is written here. Each sealed key is opened again and compared before its file goes, so that nothing is lost on the way.
What it cannot do: take back the blocks of the disk on which the file lay.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import LocalError
from store.files import publish, sync_folder

CREDENTIAL_STORE = Path("/etc/credstore.encrypted")
UNITS = Path("/etc/systemd/system")
# `auto` is the TPM and the host's own key where there is a TPM, else the host's key (/var/lib/systemd, root only).
KEY_CHOICES = ("auto", "host", "tpm2", "host+tpm2")
_TIMEOUT_S = 120
_DROP_IN = "credentials.conf"


class SealingError(LocalError):
    """Keys could not be moved; their files are untouched."""


@dataclass(frozen=True, slots=True)
class Sealer:
    """Where sealed keys go and under what. `tpm2_device` is a device or `driver:parameters` of tpm2-tss; None: any."""

    with_key: str = "auto"
    tpm2_device: str | None = None
    store: Path = CREDENTIAL_STORE
    units: Path = UNITS

    def seal(self, keys: Mapping[Path, str], unit: str, *, keep: bool) -> tuple[Path, ...]:
        """Seal each file as the credential that it is mapped to; return what was written, the drop-in last.

        The files are deleted in the end unless `keep`. Raises `SealingError`, and OSError of the last steps.
        """
        missing = [str(path) for path in keys if not path.is_file()]
        if missing:
            raise SealingError(f"{', '.join(missing)}: no such file; keys that are sealed already stay as they are")
        self.store.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = []
        for path, name in keys.items():
            secret = path.read_bytes()
            # Bound to the chip and to no measurement of its firmware: an update must not lock a daemon out for good.
            # (PCR 23 is no firmware's; systemd 252 cannot open what is bound to none.)
            options = [f"--with-key={self.with_key}", f"--name={name}", "--tpm2-pcrs=23"]
            sealed = self._run(["encrypt", *options], secret)
            if self.open(sealed, name) != secret:
                raise SealingError(f"{name} does not open again to what was sealed: nothing was changed")
            publish(self.store / name, sealed)
            written.append(self.store / name)
        folder = self.units / f"{unit}.d"
        folder.mkdir(parents=True, exist_ok=True)
        publish(folder / _DROP_IN, drop_in({name: self.store / name for name in keys.values()}).encode(), mode=0o644)
        if not keep:
            for path in keys:
                path.unlink()
                sync_folder(path.parent)
        return (*written, folder / _DROP_IN)

    def open(self, sealed: bytes, name: str) -> bytes:
        """Return what a sealed credential holds; raise `SealingError`."""
        return self._run(["decrypt", f"--name={name}"], sealed)

    def _run(self, command: Sequence[str], data: bytes) -> bytes:
        program = shutil.which("systemd-creds")
        if program is None:
            raise SealingError("systemd-creds is not here: it comes with systemd 250 or newer; the keys stay files")
        device = [] if self.tpm2_device is None else [f"--tpm2-device={self.tpm2_device}"]
        try:
            done = subprocess.run(  # noqa: S603 - a program of the system, and arguments of ours
                [program, *command, *device, "-", "-"], input=data, capture_output=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise SealingError(f"systemd-creds {command[0]} took longer than {_TIMEOUT_S} s") from error
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().splitlines() or ["it does not say why"]
            raise SealingError(f"systemd-creds {command[0]}: {reason[-1]}; run this as root; the keys stay as they are")
        return done.stdout


def drop_in(credentials: Mapping[str, Path]) -> str:
    """Return the part of a unit that hands these sealed credentials to its service."""
    lines = [f"LoadCredentialEncrypted={name}:{path}" for name, path in credentials.items()]
    return "\n".join(["# Written by seal-keys; remove this file to go back to key files.", "[Service]", *lines, ""])
