"""Keys move into sealed credentials whole or not at all: with the real systemd-creds, and with a TPM in software."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.credentials import Sealer, SealingError, drop_in

KEYS = {"signing.key": "digitruck-edge.signing", "edhoc.key": "digitruck-edge.edhoc"}
SECRETS = {"signing.key": b"\x00\n\xff" + bytes(29), "edhoc.key": bytes(range(64))}


@pytest.fixture
def keys(tmp_path: Path) -> dict[Path, str]:
    folder = tmp_path / "identity"
    folder.mkdir()
    for name, secret in SECRETS.items():
        (folder / name).write_bytes(secret)
    return {folder / name: credential for name, credential in KEYS.items()}


def sealer(tmp_path: Path, with_key: str = "host", tpm2_device: str | None = None) -> Sealer:
    return Sealer(with_key, tpm2_device, tmp_path / "store", tmp_path / "units")


@pytest.fixture
def _systemd() -> None:
    if shutil.which("systemd-creds") is None or os.geteuid() != 0:
        pytest.skip("systemd-creds needs root: run the tests as root, with the package systemd")


class SoftTpm:
    """A TPM in software that keeps its seeds; `boot` is what a reboot of its machine is to it."""

    def __init__(self, folder: Path) -> None:
        self._state, self._socket = folder / "state", folder / "s"
        self._state.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.device = f"swtpm:path={self._socket}"

    def boot(self) -> None:
        self.stop()
        server = ["--server", f"type=unixio,path={self._socket}", "--ctrl", f"type=unixio,path={self._socket}.ctrl"]
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._state}", *server, "--flags", "startup-clear"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not self._socket.exists() and time.monotonic() < end:
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._socket.unlink(missing_ok=True)


@pytest.fixture
def tpms(tmp_path: Path) -> Iterator[list[SoftTpm]]:
    """Two TPMs in software."""
    if shutil.which("swtpm") is None:
        pytest.skip("no TPM in software: apt-get install swtpm libtss2-tcti-swtpm0 libtss2-esys-3.0.2-0 libtss2-rc0")
    found = [SoftTpm(tmp_path / "tpm-0"), SoftTpm(tmp_path / "tpm-1")]
    for each in found:
        each.boot()
    yield found
    for each in found:
        each.stop()


@pytest.mark.usefixtures("_systemd")
def test_keys_are_sealed_opened_again_and_their_files_deleted(tmp_path: Path, keys: dict[Path, str]) -> None:
    seal = sealer(tmp_path)
    written = seal.seal(keys, "digitruck-edge.service", keep=False)
    assert [path.exists() for path in keys] == [False, False]
    for file, name in KEYS.items():
        sealed = (tmp_path / "store" / name).read_bytes()
        assert SECRETS[file] not in sealed
        assert seal.open(sealed, name) == SECRETS[file]
        assert (tmp_path / "store" / name).stat().st_mode & 0o777 == 0o600
        with pytest.raises(SealingError):
            seal.open(sealed, "another.name")
    text = (tmp_path / "units" / "digitruck-edge.service.d" / "credentials.conf").read_text()
    assert f"LoadCredentialEncrypted=digitruck-edge.edhoc:{tmp_path}/store/digitruck-edge.edhoc\n" in text
    assert written[-1].name == "credentials.conf"


@pytest.mark.usefixtures("_systemd")
@pytest.mark.parametrize("with_key", ["tpm2", "host+tpm2"])
def test_what_a_tpm_sealed_opens_after_a_reboot_and_with_no_other_tpm(
    tmp_path: Path, keys: dict[Path, str], tpms: list[SoftTpm], with_key: str
) -> None:
    mine, other = tpms
    seal = sealer(tmp_path, with_key, mine.device)
    seal.seal(keys, "digitruck-edge.service", keep=True)
    assert all(path.exists() for path in keys)
    sealed = (tmp_path / "store" / "digitruck-edge.edhoc").read_bytes()
    mine.boot()
    assert seal.open(sealed, "digitruck-edge.edhoc") == SECRETS["edhoc.key"]
    with pytest.raises(SealingError, match="decrypt"):
        sealer(tmp_path, with_key, other.device).open(sealed, "digitruck-edge.edhoc")


def test_without_the_program_nothing_happens(
    tmp_path: Path, keys: dict[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SealingError, match="the keys stay files"):
        sealer(tmp_path).seal(keys, "x.service", keep=False)
    assert all(path.exists() for path in keys)
    assert not (tmp_path / "units").exists()


@pytest.mark.parametrize(
    "script", ["#!/bin/sh\necho no TPM >&2\nexit 1\n", "#!/bin/sh\ncat >/dev/null\necho something else\n"]
)
def test_what_does_not_seal_or_open_again_deletes_nothing(
    tmp_path: Path, keys: dict[Path, str], monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    program = tmp_path / "systemd-creds"
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SealingError):
        sealer(tmp_path).seal(keys, "x.service", keep=False)
    assert {path.name: path.read_bytes() for path in keys} == SECRETS
    assert not (tmp_path / "units").exists()


def test_keys_that_are_sealed_already_are_named(tmp_path: Path, keys: dict[Path, str]) -> None:
    next(iter(keys)).unlink()
    with pytest.raises(SealingError, match=r"signing\.key: no such file"):
        sealer(tmp_path).seal(keys, "x.service", keep=False)


def test_a_drop_in_names_every_credential() -> None:
    assert drop_in({"a": Path("/x/a"), "b": Path("/x/b")}).count("LoadCredentialEncrypted=") == 2
