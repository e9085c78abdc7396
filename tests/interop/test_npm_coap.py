"""npm's `coap` package (JavaScript) as another independent stack: refused politely, like everybody."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.gatewayprocess import GatewayProcess
from tests.rig.npm import installed

PACKAGE = "coap@1.5.0"
PEER = Path(__file__).with_name("peer.js")


@pytest.fixture(scope="module")
def modules() -> Path:
    """The folder of npm's modules, installed once for all runs; skip without npm."""
    return installed(PACKAGE, "package.json").parent.parent


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
