"""The OSCORE contexts of a truck's links, and the promise that no sender sequence number is used twice (RFC 8613).

`reserve` makes a block of numbers durable before the first of them is used; after a crash the context goes on beyond
the block (appendix B.1.1). A database that is older than its marks, restored, copied or made anew drops every context,
and EDHOC makes new ones: that costs a few hundred bytes, a nonce used twice costs the keys. So does another boot of the
computer: a block image of its disk that was put back looks like what was written last. aiocoap's own file-backed
context is not used: it lost its sequence in 7 of 7 power cuts.
Called from the event loop in the middle of protecting a message, so it is synchronous and on its own database.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from store import incidents
from store.database import Database
from store.errors import ContextGoneError
from store.marks import Marks
from store.settings import Settings

_BOOT = "contexts-boot"
_COLUMNS = (
    "id, link, gateway, master_secret, master_salt, sender_id, recipient_id, sequence_reserved, created_s, "
    "window_index, window_bits"
)


@dataclass(frozen=True, slots=True)
class ReplayWindow:
    """The numbers of the peer that were taken: bit 0 of `bits` is number `index`."""

    index: int
    bits: int


@dataclass(frozen=True, slots=True)
class StoredContext:
    """One OSCORE context. Its first sender sequence number that was never used is `sequence_reserved`.

    `window` is None when the peer's numbers are not known (a crash): challenge the first request with Echo.
    """

    id: int
    link: str
    gateway: str
    master_secret: bytes = field(repr=False)
    master_salt: bytes = field(repr=False)
    sender_id: bytes
    recipient_id: bytes
    sequence_reserved: int
    created_s: int
    window: ReplayWindow | None


class Contexts:
    """The contexts in an open LINKS database, one a link."""

    def __init__(self, database: Database, marks: Marks, now_s: int = 0, boot: int = 0) -> None:
        """Take over the contexts; drop them all when this may not be the state that was written last.

        `boot` names the boot of the computer, 0 when it has no name.
        """
        self._database = database
        self._marks = marks
        settings = Settings(database)
        if boot and settings.get_int(_BOOT) != boot:
            with marks.durable():
                database.delete("contexts", "1 = 1")
                settings.put_int(_BOOT, boot)
        if (database.restored or database.recreated or marks.ahead) and (links := self.links()):
            with marks.durable():
                database.delete("contexts", "1 = 1")
                incidents.record(database, "oscore.dropped", {"links": ",".join(links)[:200]}, now_s)

    def links(self) -> tuple[str, ...]:
        """Return the names of the links that have a context."""
        return tuple(link for (link,) in self._database.rows("SELECT link FROM contexts ORDER BY link"))

    def get(self, link: str) -> StoredContext | None:
        """Return the context of a link, or None."""
        row = self._database.row(f"SELECT {_COLUMNS} FROM contexts WHERE link = :link", {"link": link})  # noqa: S608
        if row is None:
            return None
        window = None if row[9] is None else ReplayWindow(row[9], int.from_bytes(row[10], "big"))
        return StoredContext(*(*row[:9], window))

    def put(
        self,
        link: str,
        *,
        gateway: str,
        master_secret: bytes,
        master_salt: bytes,
        sender_id: bytes,
        recipient_id: bytes,
        created_s: int = 0,
    ) -> StoredContext:
        """Store what EDHOC made for a link, at sequence 0; the link's former context is deleted. Durable."""
        values = {
            "link": link,
            "gateway": gateway,
            "master_secret": master_secret,
            "master_salt": master_salt,
            "sender_id": sender_id,
            "recipient_id": recipient_id,
            "sequence_reserved": 0,
            "created_s": created_s,
            "window_index": 0,
            "window_bits": b"",
        }
        with self._marks.durable():
            self._database.delete("contexts", "link = :link", {"link": link})
            self._database.insert("contexts", values)
        stored = self.get(link)
        assert stored is not None
        return stored

    def reserve(self, context_id: int, below: int) -> None:
        """Return once it is durable that sender sequence numbers below `below` may be used by this context.

        Raises `ContextGoneError` when it was dropped or replaced meanwhile.
        """
        with self._marks.durable():
            where = "id = :id AND sequence_reserved <= :below"
            changes = {"sequence_reserved": below, "window_index": None, "window_bits": None}
            if not self._database.update("contexts", where, {"id": context_id, "below": below}, **changes):
                raise ContextGoneError(f"the OSCORE context {context_id} is gone or numbers below {below} were given")

    def save_window(self, context_id: int, window: ReplayWindow) -> None:
        """Note the peer's numbers at a clean end; the next `reserve` forgets them, as they go out of date."""
        bits = window.bits.to_bytes((window.bits.bit_length() + 7) // 8, "big")
        changes = {"window_index": window.index, "window_bits": bits}
        self._database.update("contexts", "id = :id", {"id": context_id}, **changes)

    def forget_window(self, context_id: int) -> None:
        """Say that the peer's numbers go out of date now; do it before the first message is taken."""
        self._database.update("contexts", "id = :id", {"id": context_id}, window_index=None, window_bits=None)

    def drop(self, link: str) -> bool:
        """Delete a link's context (EDHOC must run again); return whether there was one."""
        with self._marks.durable():
            return self._database.delete("contexts", "link = :link", {"link": link}) > 0
