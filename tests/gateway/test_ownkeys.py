"""The gateway's own keys: made once, added to, and chosen by what the root names."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gateway.ownkeys import OwnKeys, add_key, key_files, load_keys, make_keys
from protocol import cose
from protocol.documents import ExchangeKey, RoleKeys, Root
from protocol.errors import LocalError
from protocol.numbers import EXCHANGE_KEYS, DocumentKind


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys")
    return tmp_path / "keys"


def root(*freshness: cose.SigningKey, exchange: tuple[ExchangeKey, ...] = ()) -> Root:
    keys = RoleKeys(1, tuple(each.public for each in freshness))
    return Root(DocumentKind.ROOT, 1, 0, 1 << 40, RoleKeys(1, (bytes(32),)), keys, exchange)


def test_a_further_key_lies_beside_the_first_for_its_owner_only(folder: Path) -> None:
    before = load_keys(folder)
    assert (add_key(folder, "freshness"), add_key(folder, "exchange"), add_key(folder, "exchange")) == (1, 1, 2)
    keys = load_keys(folder)
    assert (keys.exchange, keys.freshness.public) == (before.exchange, before.freshness.public)
    assert (list(keys.exchange_keys), list(keys.freshness_keys)) == ([0, 1, 2], [0, 1])
    assert len({each.public for each in keys.exchange_keys.values()}) == 3
    for name in ("freshness-1.key", "edhoc-2.key"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        assert key_files(folder)[name] == f"digitruck-gateway.{name.removesuffix('.key')}"


def test_a_key_made_while_the_gateway_runs_counts_once_a_root_names_it(folder: Path) -> None:
    own = OwnKeys(folder)
    first = own.keys.freshness
    assert own.freshness_for(None).public == own.freshness_for(root(first)).public == first.public
    add_key(folder, "freshness")
    add_key(folder, "exchange")
    made = load_keys(folder)
    second, exchange = made.later_freshness[1], made.later_exchange[1]
    assert own.freshness_for(root(first)).public == first.public
    assert own.freshness_for(root(first, second)).public == second.public
    assert own.freshness_for(root(second)).public == second.public
    assert own.exchange_for(root(second)) == (0, own.keys.exchange)
    assert own.exchange_for(root(second, exchange=(ExchangeKey(1, exchange.public),))) == (1, exchange)


def test_a_root_that_names_only_keys_of_others_leaves_the_first_in_use(folder: Path) -> None:
    own = OwnKeys(folder)
    strange = root(cose.SigningKey(b"x" * 32), exchange=(ExchangeKey(0, b"y" * 32), ExchangeKey(1, b"z" * 32)))
    assert own.freshness_for(strange).public == own.keys.freshness.public
    assert own.exchange_for(strange) == (0, own.keys.exchange)


def test_numbers_end(folder: Path) -> None:
    for number in range(1, EXCHANGE_KEYS):
        assert add_key(folder, "freshness") == number
    with pytest.raises(LocalError, match="move the oldest"):
        add_key(folder, "freshness")
