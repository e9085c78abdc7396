from __future__ import annotations

import pytest

from edge.collectors.declared import ChannelSettings, check_channels, check_picked, check_pointer, json_at, read_number


@pytest.mark.parametrize(
    ("values", "said", "value"),
    [
        ({}, 12, 12),
        ({}, 12.5, 12),
        ({"decimals": 1}, 12.34, 123),
        ({"decimals": 1}, " 12.34 ", 123),
        ({"decimals": 1}, "+1.5e1", 150),
        ({"factor": 0.001, "decimals": 2}, 26430, 2643),
        ({}, True, 1),
        ({"words": {"on": 1, "3": 7}}, "on", 1),
        ({"words": {"on": 1, "3": 7}}, "3", 7),
        ({"minimum": 0}, -0.5, None),
        ({"maximum": 100}, 100.1, None),
        ({}, float("nan"), None),
        ({}, float("-inf"), None),
        ({}, "NaN", None),
        ({}, "inf", None),
        ({}, "1e999", None),
        ({}, "0x10", None),
        ({}, "1_0", None),
        ({}, "١٢", None),
        ({}, "", None),
        ({}, "1" * 5000, None),
        ({}, 10**4000, None),
        ({}, -(10**4000), None),
        ({"decimals": 9}, 1e9, None),
        ({"factor": 1e300}, 1e300, None),
        ({}, None, None),
        ({}, [1], None),
        ({}, {"a": 1}, None),
        ({}, b"1", None),
    ],
)
def test_what_a_stranger_says_is_a_scaled_integer_or_missing(values, said: object, value: int | None):
    assert ChannelSettings(name="a", **values).read(said) == value


def test_a_channel_is_declared_with_its_likely_values_in_steps():
    spec = ChannelSettings(name="v", unit="V", decimals=2, nominal=26.4, typical_change=0.05).spec("solar.v")
    assert (spec.name, spec.unit, spec.scale, spec.nominal, spec.typical_change) == ("solar.v", "V", 100, 2640, 5)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"unit": "foot"}, r"channels\[1\]\.unit: 'foot'"),
        ({"factor": 0.0}, r"channels\[1\]\.factor"),
        ({"factor": float("nan")}, r"channels\[1\]\.factor"),
        ({"minimum": 2.0, "maximum": 1.0}, r"channels\[1\]\.minimum: is more"),
        ({"nominal": float("nan")}, r"channels\[1\]\.nominal"),
        ({"maximum": 1e30}, r"channels\[1\]\.maximum"),
        ({"name": "a b"}, r"channels\[1\]\.name: 'a b' is no SenML name"),
        ({"name": "first"}, r"channels\[1\]\.name: 'first' is used twice"),
    ],
)
def test_a_channel_that_does_not_hold_names_its_key(values, says: str):
    with pytest.raises(ValueError, match=f"^{says}"):
        check_channels([ChannelSettings(name="first"), ChannelSettings(**{"name": "second", **values})])


def test_picked_channels_exist_once():
    check_picked(("a", "b"), ("a", "b", "c"))
    with pytest.raises(ValueError, match=r"^channels\[1\]: there is no 'x'; there are: a, b"):
        check_picked(("a", "x"), ("a", "b"))
    with pytest.raises(ValueError, match=r"^channels: "):
        check_picked(("a", "a"), ("a", "b"))


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("", {"a": [1, {"b/c": 2, "~": 3}], "": 4}),
        ("/a/0", 1),
        ("/a/1/b~1c", 2),
        ("/a/1/~0", 3),
        ("/", 4),
        ("/a/2", None),
        ("/a/-1", None),
        ("/a/00", None),
        ("/a/9999999999", None),
        ("/b", None),
        ("/a/0/x", None),
    ],
)
def test_a_pointer_finds_its_place_or_nothing(pointer: str, found: object):
    assert json_at({"a": [1, {"b/c": 2, "~": 3}], "": 4}, pointer) == found


def test_what_is_no_pointer_is_refused():
    assert "begins with /" in (check_pointer("a/b") or "")
    assert check_pointer("/a" * 17)
    assert check_pointer("") is None


def test_a_word_that_is_not_known_may_still_be_a_number():
    assert read_number("7", {"on": 1}) == 7.0
    assert read_number("off", {"on": 1}) is None
