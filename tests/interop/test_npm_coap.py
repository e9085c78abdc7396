"""npm's `coap` package (JavaScript) as another independent stack: refused politely, like everybody."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.gatewayprocess import GatewayProcess

PACKAGE = "coap@1.5.0"
PEER = Path(__file__).with_name("peer.js")


@pytest.fixture(scope="module")
def modules() -> Path:
    """The folder of npm's modules, installed once for all runs; skip without npm."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed (Debian: apt-get install nodejs npm)")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "digitruck-tests"
    folder = cache / PACKAGE
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=cache))
        (fresh / "package.json").write_text('{"private": true}')
        npm = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
        done = subprocess.run(npm, cwd=fresh, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            shutil.rmtree(fresh)
            pytest.skip(f"npm cannot install {PACKAGE}: {done.stderr.strip().splitlines()[-1:]}")
        with contextlib.suppress(OSError):  # somebody else was faster
            fresh.rename(folder)
    return folder / "node_modules"


@pytest.fixture(scope="module")
def ask(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, Any]]]:
    """Send one request to a gateway by node and return what came back."""
    with GatewayProcess(tmp_path_factory.mktemp("interop"), []) as gateway:
        host, _, port = gateway.address.rpartition(":")

        def send(method: str, path: str, **options: Any) -> dict[str, Any]:
            done = subprocess.run(
                ["node", str(PEER), host, port, method, path, json.dumps(options)],
                env={**os.environ, "NODE_PATH": str(modules)},
                capture_output=True,
                text=True,
                timeout=20,
                check=True,
            )
            return dict(json.loads(done.stdout))

        yield send


@pytest.mark.parametrize(("method", "path"), [("GET", "/d"), ("POST", "/u"), ("GET", "/.well-known/core")])
@pytest.mark.parametrize("confirmable", [True, False])
def test_requests_are_refused_without_a_word(
    ask: Callable[..., dict[str, Any]], method: str, path: str, confirmable: bool
) -> None:
    assert ask(method, path, confirmable=confirmable) == {"code": "4.01", "bytes": 0, "options": []}


def test_observe_is_refused_like_the_rest(ask: Callable[..., dict[str, Any]]) -> None:
    assert ask("GET", "/d", observe=True) == {"code": "4.01", "bytes": 0, "options": []}
