"""Facts about the repository itself: locks, contracts, what is tracked, what the commands are called."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("protocol", "store", "edge", "gateway")
LOCKS = ("edge", "instruments", "gateway", "demo", "dev", "bench")
INSTRUMENTS = {"devices", "modem", "snmp", "starlink", "workstations"}
GATEWAY_ONLY = {"sqlalchemy", "alembic", "aiosqlite", "asyncpg", "prometheus-client", "aiohttp-sse", "rich", "segno"}

# Written in pieces, so that this file does not match itself.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"(?<![\w.<>$*{}\-])/(?:ho" + r"me|ro" + r"ot|wo" + r"rk|Us" + r"ers)/[\w.]",
            r"py" + r"pi\.org",
            r"pythonho" + r"sted",
            r"registry\.np" + r"mjs",
            r"deb\.deb" + r"ian\.org",
            r"--(?:extra-)?index-" + r"url\s",
            r"--find-" + r"links\s",
        ]
    )
)


def read_project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def read_lock(name: str) -> dict[str, list[tuple[Requirement, int]]]:
    """Return canonical name -> its pins (one for each marker), each with its number of hashes."""
    pins: dict[str, list[tuple[Requirement, int]]] = {}
    text = (ROOT / "requirements" / f"{name}.lock").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement = Requirement(line.split("--hash=")[0].strip())
            pins.setdefault(canonicalize_name(requirement.name), []).append((requirement, line.count("--hash=sha256:")))
    return pins


def wanted(project: dict[str, Any], *, extras: set[str], groups: set[str]) -> list[Requirement]:
    """Return the direct requirements of the project with these extras and groups, includes followed."""
    found: list[Requirement] = [Requirement(line) for line in project["project"]["dependencies"]]
    for extra in extras:
        for line in project["project"]["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if requirement.name == project["project"]["name"]:
                found += wanted(project, extras=set(requirement.extras), groups=set())
            else:
                found.append(requirement)
    for group in groups:
        for entry in project["dependency-groups"][group]:
            if isinstance(entry, dict):
                found += wanted(project, extras=set(), groups={entry["include-group"]})
            else:
                found.append(Requirement(entry))
    return found


def tracked_files() -> list[str]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout, so nothing says which files are tracked")
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    return [name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize(
    ("lock", "extras", "groups"),
    [
        ("edge", {"devices"}, set()),
        ("instruments", INSTRUMENTS, set()),
        ("gateway", {"gateway", "postgres"}, {"build"}),
        ("demo", {"gateway", "postgres"}, {"demo"}),
        ("dev", {*INSTRUMENTS, "gateway", "postgres", "operator"}, {"dev"}),
        ("bench", {*INSTRUMENTS, "gateway", "postgres", "operator"}, {"bench"}),
    ],
)
def test_lock_holds_what_pyproject_asks_for(lock: str, extras: set[str], groups: set[str]) -> None:
    pins = read_lock(lock)
    for requirement in wanted(read_project(), extras=extras, groups=groups):
        versions = [next(iter(pin.specifier)).version for pin, _ in pins.get(canonicalize_name(requirement.name), [])]
        assert versions, f"{requirement} is not in {lock}.lock: make lock"
        assert all(requirement.specifier.contains(Version(version)) for version in versions), (
            f"{requirement}: make lock"
        )


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_is_exact_and_hashed(lock: str) -> None:
    for name, pins in read_lock(lock).items():
        for pin, hashes in pins:
            assert [clause.operator for clause in pin.specifier] == ["=="], name
            assert pin.url is None, name
            assert hashes >= 1, name


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [("edge", "instruments"), ("instruments", "dev"), ("gateway", "demo"), ("demo", "dev"), ("dev", "bench")],
)
def test_smaller_lock_is_within_the_larger(smaller: str, larger: str) -> None:
    inner, outer = read_lock(smaller), read_lock(larger)
    assert {name: {str(pin.specifier) for pin, _ in pins} for name, pins in inner.items()} == {
        name: {str(pin.specifier) for pin, _ in outer.get(name, [])} for name in inner
    }


def test_edge_lock_holds_none_of_the_gateways_parts() -> None:
    assert GATEWAY_ONLY.isdisjoint(read_lock("edge"))
    assert GATEWAY_ONLY.isdisjoint(read_lock("instruments"))
    assert read_lock("gateway").keys() >= GATEWAY_ONLY


def test_no_machine_path_or_registry_host_is_tracked() -> None:
    found: list[str] = []
    for name in tracked_files():
        text = (ROOT / name).read_text(errors="replace")
        found += [f"{name}: {match.group()}" for match in FORBIDDEN.finditer(text)]
    assert not found


def test_every_package_says_in_one_line_what_it_is() -> None:
    for package in PACKAGES:
        first = (ROOT / package / "__init__.py").read_text().splitlines()[0]
        assert re.fullmatch(r'"""[A-Z].{20,}', first), package


def test_import_contracts_hold_the_arrows_and_the_purity() -> None:
    contracts = {contract["id"]: contract for contract in read_project()["tool"]["importlinter"]["contracts"]}
    assert contracts["arrows"]["layers"] == ["edge | gateway", "store", "protocol"]
    assert {"time", "random", "socket", "os", "sqlite3", "aiocoap"} <= set(
        contracts["pure-protocol"]["forbidden_modules"]
    )
    assert contracts["pure-protocol"]["ignore_imports"] == ["protocol.oscore -> aiocoap"]
    assert {name.replace("-", "_") for name in GATEWAY_ONLY} == set(contracts["light-edge"]["forbidden_modules"])


def test_protocol_calls_nothing_that_reads_writes_or_runs() -> None:
    # What needs no import escapes the import contract.
    for source in sorted((ROOT / "protocol").rglob("*.py")):
        for call in ast.walk(ast.parse(source.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                assert call.func.id not in {"open", "print", "input", "exec", "eval", "__import__"}, source.name


def test_entry_points_are_where_pyproject_says() -> None:
    project = read_project()["project"]
    points = [*project["scripts"].values(), *project["entry-points"]["digitruck.collectors"].values()]
    missing = []
    for point in points:
        module, name = point.split(":")
        if not callable(getattr(importlib.import_module(module), name, None)):
            missing.append(point)
    assert not missing


def test_version_is_named_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog
    assert f"## [{read_project()['project']['version']}]" in changelog


def test_ci_script_is_executable_and_parses() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


SKIPPING = {
    "test_in_test.py": "import pytest\ndef test_a():\n    pytest.skip('no crane')\n",
    "test_by_mark.py": "import pytest\n@pytest.mark.skip(reason='no crane')\ndef test_a():\n    pass\n",
    "test_module.py": "import pytest\npytest.skip('no crane', allow_module_level=True)\n",
    "test_fixture.py": (
        "import pytest\n@pytest.fixture\ndef crane():\n    pytest.skip('no crane')\ndef test_a(crane):\n    pass\n"
    ),
}


@pytest.mark.parametrize(("ci", "outcome", "code"), [("true", "failed|error", 1), ("", "skipped", 0)])
def test_skip_is_a_failure_in_ci_and_a_skip_elsewhere(tmp_path: Path, ci: str, outcome: str, code: int) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "conftest.py")
    for name, body in SKIPPING.items():
        (tmp_path / name).write_text(body)
    (tmp_path / "test_run.py").write_text("def test_a():\n    pass\n")
    options = "-rfEs --no-fold-skipped --continue-on-collection-errors -p no:cacheprovider --rootdir . ."
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", os.devnull, *options.split()],
        cwd=tmp_path,
        env={**os.environ, "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stdout
    summary = run.stdout[run.stdout.index("short test summary") :]
    for name in SKIPPING:
        assert re.search(rf"(?i)^({outcome}).*{name}.*no crane", summary, re.MULTILINE), run.stdout
    assert "1 passed" in summary
