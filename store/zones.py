"""Local time by the machine's time zone database: seconds ahead of UTC, as a value that pure code can be given."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo

from protocol.errors import UntrustedError
from protocol.windows import Offset


class UnknownZoneError(UntrustedError):
    """A document names a time zone that this machine does not know."""


@cache
def offset_of(zone: str) -> Offset:
    """Return the offset of an IANA time zone; raise `UnknownZoneError`."""
    try:
        info = ZoneInfo(zone)
    except (KeyError, OSError, ValueError) as error:
        # Not found is a KeyError; a folder or a file that is no zone are the others.
        raise UnknownZoneError(f"time zone {zone} is not known here; is tzdata installed?") from error

    def offset(at_s: int) -> int:
        local = datetime.fromtimestamp(at_s, UTC).astimezone(info).utcoffset()
        assert local is not None
        return round(local.total_seconds())

    return offset
