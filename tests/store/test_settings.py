"""Settings: small values that outlive a restart, floors that only rise, counters that never repeat."""

import pytest

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
