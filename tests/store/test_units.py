"""The units that are printed are what systemd takes, and leave a daemon little to be abused for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge.__main__ import main as edge_main
from gateway.__main__ import main as gateway_main
from store.units import program, service


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the commands somewhere: tests also run where nothing is installed."""
    for name in ("digitruck-edge", "digitruck-gateway"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


def printed(side: str, folder: Path) -> str:
    config = folder / f"{side}.toml"
    config.write_text('data = "."\n' if side == "gateway" else f'data = "{folder}"\n')
    main = {"edge": edge_main, "gateway": gateway_main}[side]
    result = CliRunner().invoke(main, ["unit", "--config", str(config), "--user", "root"])
    assert result.exit_code == 0, result.output
    return result.output


def analyze(*args: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here: apt-get install systemd")
    return subprocess.run(["systemd-analyze", *args], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("side", ["edge", "gateway"])
def test_systemd_takes_the_unit_and_rates_it_well(side: str, tmp_path: Path) -> None:
    unit = tmp_path / f"digitruck-{side}.service"
    unit.write_text(printed(side, tmp_path))
    verified = analyze("verify", "--man=no", str(unit))
    assert f"digitruck-{side}" not in verified.stderr, verified.stderr
    rated = analyze("security", "--offline=yes", "--no-pager", str(unit))
    exposure = re.search(r"exposure level[^:]*: ([0-9.]+)", rated.stdout)
    assert exposure is not None, rated.stdout + rated.stderr
    # As root here; the user that it is meant for takes another half point off.
    assert float(exposure[1]) < 4.5, rated.stdout


@pytest.mark.parametrize("side", ["edge", "gateway"])
def test_a_unit_restarts_for_ever_and_knows_a_daemon_that_hangs(side: str, tmp_path: Path) -> None:
    lines = printed(side, tmp_path).splitlines()
    assert {"Type=notify", "Restart=always", "WatchdogSec=300", "StartLimitIntervalSec=0"} <= set(lines)
    assert f"ReadWritePaths={tmp_path}" in lines


def test_words_of_a_command_stay_words() -> None:
    text = service("x", ["/opt/a b/run", "100%", "$HOME", 'say "hi"'], user="u", writes=Path("/srv/a b"), lines=())
    assert 'ExecStart="/opt/a b/run" "100%%" "$$HOME" "say \\"hi\\""' in text
    assert 'ReadWritePaths="/srv/a b"' in text


def test_a_program_of_this_installation_is_named_by_its_whole_path() -> None:
    assert program("digitruck-edge").is_absolute()
    assert program("no-such-program").is_absolute()
