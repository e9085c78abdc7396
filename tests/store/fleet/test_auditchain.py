"""The chain's hash is the published one, and covers every field."""

import hashlib
from dataclasses import replace

import pytest

from store.fleet.auditchain import BEFORE_FIRST, chained, holds
from store.fleet.records import AuditNote

NOTE = AuditNote("ada", "truck.revoked", "ke-ärrow", 5, '{"a":"\\"ü"}')


def test_the_hash_is_sha256_of_the_one_before_and_ascii_json() -> None:
    content = b'[1,5,"ada","truck.revoked","ke-\\u00e4rrow","{\\"a\\":\\"\\\\\\"\\u00fc\\"}"]'
    assert chained(1, NOTE, BEFORE_FIRST).hash == hashlib.sha256(bytes(32) + content).digest()


@pytest.mark.parametrize("field", ["id", "at_ms", "actor", "action", "subject", "detail_json", "previous", "hash"])
def test_every_field_is_covered(field: str) -> None:
    entry = chained(7, NOTE, b"p" * 32)
    assert holds(entry)
    value = getattr(entry, field)
    other = value + 1 if isinstance(value, int) else value[:-1] + (b"!" if isinstance(value, bytes) else "!")
    assert not holds(replace(entry, **{field: other}))
