"""The lab, where there may be one: as root, with namespaces and tun devices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netlab.lab import Lab
from tests.netlab.namespaces import why_not


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Return an empty lab with a gateway's namespace."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Lab() as made:
        yield made
