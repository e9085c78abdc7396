"""What the command's tests share: a person's home folders, the command itself, and a gateway to talk to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.api.auth import Role
from gateway.cli.__main__ import main
from tests.gateway.running import RunningGateway, running_gateway


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
    digitruck("login", gateway.url, "--token", gateway.tokens[Role.ADMIN])
    return gateway


@pytest.fixture
def trusted(signed_in: RunningGateway, digitruck: Digitruck) -> RunningGateway:
    """The same with a root and a delegation in force: `asha` operates everything, `library` publishes everything."""
    for name, role in (("r1", "root"), ("r2", "root"), ("r3", "root"), ("asha", "operator"), ("library", "publisher")):
        digitruck("key", "new", name, "--role", role)
    roots = ("--root", "r1", "--root", "r2", "--root", "r3")
    digitruck("trust", "init", *roots, "--key", "r1", "--key", "r2", "--yes")
    digitruck("trust", "push")
    roles = ("--operator", "*=asha", "--publisher", "*=library")
    digitruck("trust", "delegate", *roles, "--key", "r1", "--key", "r3", "--yes")
    digitruck("trust", "push")
    return signed_in
