"""Row hashes: every value, its kind and its place count."""

import pytest

from store.rowhash import ROW_HASH_BYTES, row_hash


def test_a_hash_is_short_and_stable() -> None:
    assert len(row_hash("t", 1, "a", b"b", None)) == ROW_HASH_BYTES
    assert row_hash("t", 1, "a", b"b", None) == row_hash("t", 1, "a", b"b", None)
    # A change of the function would make every database on every truck look damaged.
    assert row_hash("parcels", 1, "a", b"b", None).hex() == "97796fd53fc84b27"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("t", 1), ("u", 1)),
        (("t", 1), ("t", "1")),
        (("t", "a"), ("t", b"a")),
        (("t", None), ("t", b"")),
        (("t", "ab", "c"), ("t", "a", "bc")),
        (("t", b"1:", b""), ("t", b"1", b":")),
        (("t", 1), ("t", -1)),
        (("t", 1, None), ("t", None, 1)),
        (("t", 1.0), ("t", 1)),
    ],
)
def test_what_differs_hashes_differently(one, other) -> None:
    assert row_hash(*one) != row_hash(*other)
