"""Settings and incidents: small values that outlive a restart, and what must be told upstream exactly once."""

import pytest

from store import incidents
from store.settings import Settings


def test_values_outlive_a_crash_and_integers_have_64_bits(opened) -> None:
    first = opened()
    settings = Settings(first)
    settings.put("key-path", b"/etc/key")
    settings.put_int("low", -(1 << 63))
    first.crash()
    settings = Settings(opened())
    assert settings.get("key-path") == b"/etc/key"
    assert settings.get_int("low") == -(1 << 63)
    assert (settings.get("none"), settings.get_int("none", 5)) == (None, 5)
    settings.remove("key-path")
    assert settings.get("key-path") is None
    with pytest.raises(OverflowError):
        settings.put_int("high", 1 << 63)


def test_a_floor_only_rises(database) -> None:
    settings = Settings(database)
    assert settings.raise_int("clock-floor", 100) == 100
    assert settings.raise_int("clock-floor", 50) == 100
    assert settings.raise_int("clock-floor", 150) == 150
    assert settings.get_int("clock-floor") == 150


def test_a_counter_never_gives_a_number_twice(opened) -> None:
    first = opened()
    assert Settings(first).count("boot") == 1
    first.crash()
    assert Settings(opened()).count("boot") == 2


def test_incidents_are_told_oldest_first_and_once(database) -> None:
    start = len(incidents.unreported(database))
    for number in range(3):
        incidents.record(database, "test.thing", {"number": number, "text": "x", "flag": True}, number)
    found = incidents.unreported(database)[start:]
    assert [dict(each.values) for each in found] == [{"number": n, "text": "x", "flag": True} for n in range(3)]
    incidents.mark_reported(database, [each.id for each in found[:2]])
    assert [each.values["number"] for each in incidents.unreported(database)[start:]] == [2]


def test_reported_incidents_do_not_pile_up(database) -> None:
    for number in range(1_100):
        incidents.record(database, "test.thing", {"number": number}, 0)
    incidents.mark_reported(database, [each.id for each in incidents.unreported(database, 2_000)])
    incidents.record(database, "test.thing", {"number": 0}, 0)
    assert database.value("SELECT count(*) FROM incidents") <= incidents.INCIDENTS_KEPT + 1
