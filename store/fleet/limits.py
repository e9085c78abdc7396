"""Every bound of the fleet store in one place, with its reason."""

from __future__ import annotations

from typing import Final

# A page of a listing: what a caller may ask for at once. Batches carry up to 16 KiB each.
PAGE_MAX: Final = 1_000
# The change feed is for following along, not for history; a reader that was away longer reloads.
CHANGES_KEPT: Final = 10_000
CHANGES_PRUNE_EVERY: Final = 500
# Quarantine is for looking at a fault, not for storing an attack.
QUARANTINED_KEPT: Final = 256
# Scrubbing reads this many parcels at a time, so that it never holds a connection or memory for long.
SCRUB_CHUNK: Final = 500
DAMAGED_NAMED_MAX: Final = 100
# PostgreSQL resolves a deadlock by failing one side, which then starts its transaction over.
TRANSACTION_ATTEMPTS_MAX: Final = 5
# SQLite waits this long for another process (a backup tool, a shell) to let go of the file.
SQLITE_BUSY_MS: Final = 10_000
SQLITE_READERS: Final = 4
POSTGRES_CONNECTIONS: Final = 10
# Pages that the write-ahead log gathers (32 MiB) before they are carried into the file: a page that is written in each
# of many commits is carried once.
SQLITE_CHECKPOINT_PAGES: Final = 8_192
SQLITE_CACHE_KIB: Final = 64 * 1_024
