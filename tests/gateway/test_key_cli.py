"""`digitruck-gateway key`: what it prints is what the root's holders need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.__main__ import main
from gateway.config import DEFAULT_TEXT
from gateway.ownkeys import load_keys, make_keys


@pytest.fixture
def config(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys")
    path = tmp_path / "gateway.toml"
    path.write_text(DEFAULT_TEXT.format(coap="127.0.0.1:5683", http="127.0.0.1:8080", port=5683))
    return path


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["key", *arguments, "--config", str(config)])


@pytest.mark.parametrize("kind", ["freshness", "exchange"])
def test_a_further_key_is_made_and_the_next_command_told(config: Path, kind: str) -> None:
    before = json.loads(run(config, "show", "--json").output)
    made = run(config, "new", kind)
    assert made.exit_code == 0
    after = json.loads(run(config, "show", "--json").output)
    (new,) = [each for each in after if each not in before]
    assert (new["kind"], new["number"]) == (kind, 1)
    assert new["public"] in made.output
    assert "digitruck trust rotate " + ("exchange" if kind == "exchange" else "gateway") in made.output
    assert json.loads(run(config, "new", kind, "--json").output)["number"] == 2


def test_private_halves_are_never_printed(config: Path) -> None:
    run(config, "new", "exchange")
    shown = run(config, "show").output
    keys = load_keys(config.parent / "keys")
    assert keys.exchange.public.hex() in shown
    assert keys.freshness.public.hex() in shown
    for secret in (keys.exchange.private, keys.freshness.seed, keys.later_exchange[1].private):
        assert secret.hex() not in shown
