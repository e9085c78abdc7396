"""Databases for the tests of the store: real files below tmp_path, small shares, seeded entropy."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocol import cose, messages
from store.database import Database, open_database
from store.schema import LINKS, STATE, Schema

Open = Callable[..., Database]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Open databases below tmp_path, and let go of them all at the end."""
    databases: list[Database] = []

    def open_one(name: str = "state.db", *, share_bytes: int = 8 << 20, **options: object) -> Database:
        schema: Schema = LINKS if name.startswith("links") else STATE
        database = open_database(tmp_path / name, schema=schema, share_bytes=share_bytes, **options)
        databases.append(database)
        return database

    yield open_one
    for database in databases:
        database.crash()


@pytest.fixture
def database(opened: Open) -> Database:
    return opened()


@pytest.fixture
def key() -> cose.SigningKey:
    return cose.SigningKey(bytes(range(32)))


@pytest.fixture
def seal(key: cose.SigningKey) -> Callable[..., bytes]:
    """Seal as a truck called ke-arrow does."""
    return lambda parcel, meaning=None: messages.seal(key, parcel, "ke-arrow", meaning)


@pytest.fixture
def flip() -> Callable[[Path, bytes], None]:
    """Flip one bit in the middle of a byte string that a file holds."""

    def flip_in(path: Path, needle: bytes) -> None:
        data = bytearray(path.read_bytes())
        at = data.index(needle) + len(needle) // 2
        data[at] ^= 1 << random.Random(7).randrange(8)
        path.write_bytes(data)

    return flip_in
