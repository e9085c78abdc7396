"""Containers and broken bytes for the tests of packs."""

from collections.abc import Callable, Iterator

import pytest

from tests.protocol.pack.making import Containers, broken


@pytest.fixture
def make() -> type[Containers]:
    """Return what makes containers."""
    return Containers


@pytest.fixture
def fuzz() -> Callable[[bytes, int], Iterator[bytes]]:
    """Return what yields broken copies of some bytes."""
    return broken
