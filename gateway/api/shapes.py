"""Building blocks of what goes in and out as JSON: the strict base, the common field types, listing and cursor.

Digests are 64 lower-case hex digits. Times that go in are RFC 3339 or Unix seconds; times that come out are Unix
milliseconds in fields named `_ms`. Unknown fields are refused: a typo must not silently mean the default.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.api.limits import PAGE_ITEMS, PAGE_ITEMS_MAX, PAGE_ITEMS_SERVED
from gateway.api.problem import Problem
from protocol.wire import Name

Hex = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", description="SHA-256, 64 lower-case hex digits")]
Time = Annotated[datetime, Meta(tz=True, description="RFC 3339 with an offset, or Unix seconds")]
Limit = Annotated[int, Meta(ge=1, le=PAGE_ITEMS_MAX, description="how many items at most")]
Cursor = Annotated[str, Meta(max_length=256, description="`next` of the page before")]
Millis = Annotated[int, Meta(description="Unix milliseconds")]
Bytes = Annotated[int, Meta(ge=0, description="bytes")]
MoneyMilli = Annotated[int, Meta(description="thousandths of the currency")]


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every struct of the API."""


class PageQuery(Shape, frozen=True):
    """Every listing takes these two."""

    limit: Limit = PAGE_ITEMS
    after: Cursor | None = None

    @property
    def served(self) -> int:
        """Return how many items a page really has at most: fewer than may be asked for."""
        return min(self.limit, PAGE_ITEMS_SERVED)


class TruckPath(Shape, frozen=True):
    """A truck in an address."""

    truck: Name


class DigestPath(Shape, frozen=True):
    """A document or blob in an address."""

    digest: Hex

    @property
    def raw(self) -> bytes:
        """Return the digest's 32 bytes."""
        return bytes.fromhex(self.digest)


def millis(time: datetime | None, default: int) -> int:
    """Return a time of a query as Unix ms."""
    return default if time is None else round(time.timestamp() * 1000)


def number_cursor(after: str | None) -> int | None:
    """Return a cursor that is a number; raise a 400 `Problem` for one that this listing never gave out."""
    if after is None:
        return None
    if not after.isascii() or not after.isdigit() or len(after) > 18:
        raise bad_cursor()
    return int(after)


def bad_cursor() -> Problem:
    """Return the refusal of a cursor that was not given out."""
    return Problem(400, "`after` is not a cursor of this listing; take it from `next` of the page before")
