"""links.db opened as a whole: the OSCORE contexts and the ledger of a truck, with the marks that guard both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.budget import Cap
from store.contexts import Contexts
from store.database import Database, Entropy, open_database
from store.ledger import Ledger
from store.marks import Marks
from store.purses import SLICE_BYTES
from store.schema import LINKS

LINKS_SHARE_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Links:
    """What must be durable before a datagram leaves; used by the event loop's thread alone."""

    database: Database
    contexts: Contexts
    ledger: Ledger

    def close(self) -> None:
        """End cleanly: nothing that is left of a slice counts as spent."""
        self.ledger.release()
        self.database.close()


def open_links(
    path: Path,
    caps: Mapping[str, Cap],
    *,
    slice_bytes: int = SLICE_BYTES,
    share_bytes: int = LINKS_SHARE_BYTES,
    now_s: int = 0,
    entropy: Entropy = os.urandom,
    host: bytes = b"",
    boot: int = 0,
) -> Links:
    """Open or make links.db; `caps` names every link of the truck, `boot` the boot of the computer (0: unknown).

    Other options and errors as `open_database`.
    """
    database = open_database(path, schema=LINKS, share_bytes=share_bytes, now_s=now_s, entropy=entropy, host=host)
    try:
        marks = Marks(database)
        return Links(
            database,
            Contexts(database, marks, now_s, boot),
            Ledger(database, marks, caps, slice_bytes=slice_bytes, now_s=now_s),
        )
    except BaseException:
        database.crash()
        raise
