"""Pools: the grants never come to more than the pool, also while some trucks still go by older ones."""

from __future__ import annotations

import pytest

from protocol import cbor
from protocol.documents import Addressee, Config
from protocol.errors import MalformedError
from protocol.numbers import DocumentKind
from protocol.tariffs import Budget, Grant, Pool, Tariff, Unit, pool_excess


def pool(amount: int, **grants: int) -> Pool:
    return Pool("sat", Unit.BYTES, amount, tuple(Grant(truck, each) for truck, each in grants.items()))


def test_grants_beyond_the_pool_make_a_config_malformed() -> None:
    config = Config(DocumentKind.CONFIG, 1, 0, 1, Addressee((), "kenya"), pools=(pool(100, a=60, b=40),))
    fields = config.fields()
    assert Config.decode(cbor.encode(fields)) == config
    fields[18][0][2] = 99
    with pytest.raises(MalformedError, match="come to 100, it has 99"):
        Config.decode(cbor.encode(fields))


def test_a_truck_without_a_grant_has_nothing() -> None:
    assert pool(100, a=60).grant("a") == 60
    assert pool(100, a=60).grant("b") == 0


def test_a_raised_grant_waits_for_the_lowered_one_to_be_applied() -> None:
    wanted = pool(100, a=20, b=80)
    assert pool_excess(wanted, {"a": 60, "b": 40}) == 40
    assert pool_excess(wanted, {"a": 20, "b": 40}) == 0
    assert pool_excess(wanted, {"a": 20, "b": 40, "gone": 5}) == 5


def test_a_tariff_of_a_later_release_is_read_as_far_as_it_is_known() -> None:
    fields = cbor.decode(Tariff("sat", price_per_mb_milli=7).encode())
    assert Tariff.decode(cbor.encode([*fields, "later"])) == Tariff("sat", price_per_mb_milli=7)
    assert Budget.decode(cbor.encode(["sat", 5])) == Budget("sat", 5)
