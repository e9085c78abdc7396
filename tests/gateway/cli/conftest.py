"""What the command's tests share: a person's home folders, the command itself, and a gateway to talk to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.api.auth import Role
from gateway.cli.__main__ import main
from tests.gateway.running import TOKENS, RunningGateway, running_gateway


@dataclass(frozen=True)
class Ran:
    """What a run of the command printed and returned."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Digitruck = Callable[..., Ran]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders of a person who has never used the command."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in ("DIGITRUCK_URL", "DIGITRUCK_TOKEN", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def digitruck(capsys: pytest.CaptureFixture[str]) -> Digitruck:
    """Run the command as a shell would; `ok` (the default) says that it must succeed."""

    def run(*arguments: str, ok: bool = True) -> Ran:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        ran = Ran(code, captured.out, captured.err)
        assert not ok or code == 0, ran
        return ran

    return run


@pytest.fixture
def gateway(empty_database: Path, tmp_path: Path) -> Iterator[RunningGateway]:
    """A gateway that nobody has signed in to."""
    with running_gateway(empty_database, tmp_path / "gateway") as running:
        yield running


@pytest.fixture
def signed_in(gateway: RunningGateway, digitruck: Digitruck) -> RunningGateway:
    """A gateway that this person is signed in to as its admin."""
    digitruck("login", gateway.url, "--token", TOKENS[Role.ADMIN])
    return gateway


@pytest.fixture(scope="session")
def trusted_once(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person's folder and a gateway's database with root and delegation in force, made once by the command."""
    top = tmp_path_factory.mktemp("trusted")

    def run(*arguments: str) -> None:
        assert main(arguments) == 0, arguments

    with pytest.MonkeyPatch.context() as patch, running_gateway(empty_database, top / "gateway") as running:
        patch.setenv("XDG_DATA_HOME", str(top / "data"))
        patch.setenv("DIGITRUCK_URL", running.url)
        patch.setenv("DIGITRUCK_TOKEN", TOKENS[Role.ADMIN])
        for name in ("r1", "r2", "r3"):
            run("key", "new", name, "--role", "root")
        run("key", "new", "asha", "--role", "operator")
        run("key", "new", "library", "--role", "publisher")
        roots = ("--root", "r1", "--root", "r2", "--root", "r3")
        run("trust", "init", *roots, "--key", "r1", "--key", "r2", "--yes")
        run(
            "trust",
            "delegate",
            "--operator",
            "*=asha",
            "--publisher",
            "*=library",
            "--key",
            "r1",
            "--key",
            "r3",
            "--yes",
        )
        run("trust", "push")
        running.run(running.fleet.backup(top / "fleet.db"))
    return top


@pytest.fixture
def trusted(trusted_once: Path, tmp_path: Path, digitruck: Digitruck) -> Iterator[RunningGateway]:
    """A gateway with a root and a delegation in force, signed in to: `asha` operates and `library` publishes all."""
    shutil.copytree(trusted_once / "data", tmp_path / "data")
    with running_gateway(trusted_once / "fleet.db", tmp_path / "gateway") as running:
        digitruck("login", running.url, "--token", TOKENS[Role.ADMIN])
        yield running
