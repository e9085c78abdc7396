"""Quotes as people read them; they are waited for while the gateway makes the packs that they are about."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from gateway.cli.ledger import money
from gateway.cli.output import note, print_table, size
from gateway.client import SyncClient
from gateway.contentanswers import Bundle, LinkQuote, TruckQuote
from protocol.documents import Addressee

# Making a pack of some gigabytes takes minutes; after that the size of the files has to do.
QUOTE_WAIT_S: Final = 300
_ASK_AGAIN_S: Final = 3.0


def quoted(client: SyncClient, found: Bundle, to: Addressee, *, wait_s: float = QUOTE_WAIT_S) -> list[TruckQuote]:
    """Return the quotes of a bundle for trucks or a group, once their packs are made."""
    until = time.monotonic() + wait_s
    told = False
    while True:
        items = _asked(client, found, to)
        making = sum(each.making for each in items)
        left = until - time.monotonic()
        if not making or left <= 0 or not wait_s:
            if making:
                note(f"{making} of {len(items)} quotes are by the size of the files: their packs are not made yet.")
            return items
        if not told:
            note(f"The gateway is making packs for {making} trucks (--no-wait takes the size of the files instead).")
            told = True
        time.sleep(min(_ASK_AGAIN_S, left))


def _asked(client: SyncClient, found: Bundle, to: Addressee) -> list[TruckQuote]:
    items: list[TruckQuote] = []
    after: str | None = None
    while True:
        page = client.quote(found.name, found.version, trucks=to.trucks, group=to.group, after=after)
        items += page.items
        after = page.next
        if after is None:
            return items


def known_cost(link: LinkQuote) -> int | None:
    """Return what a link would cost, None where no price is known."""
    return link.money_milli if link.is_priced else None


def print_quote(items: Sequence[TruckQuote]) -> None:
    """Print quotes, a line for each truck and link, and what all of it comes to over each truck's cheapest link."""
    rows: list[tuple[object, ...]] = []
    for each in items:
        pack = size(each.pack_bytes) if each.pack_bytes is not None else f"at most {size(each.file_bytes)}"
        start = (each.truck, each.files, size(each.file_bytes), pack)
        rows += [
            (
                *start,
                link.link,
                size(link.wire_bytes),
                money(known_cost(link), link.currency),
                _days(link),
                link.fits,
                _usb(link),
            )
            for link in each.links
        ]
        if not each.links:
            rows.append((*start, *([None] * 6)))
    print_table(
        ["truck", "files", "content", "pack", "link", "on the link", "money", "there in", "fits", "a stick saves"],
        rows,
        empty="no truck is meant by it yet",
    )


def _days(link: LinkQuote) -> str:
    if link.days is None:
        return "not within years" if not link.fits else "not known"
    if link.days >= 1:
        return f"{link.days:.0f} days"
    if link.transfer_s is None:
        return "not known"
    return f"{link.transfer_s // 3600} h" if link.transfer_s >= 7200 else f"{max(1, link.transfer_s // 60)} min"


def _usb(link: LinkQuote) -> str:
    if link.is_priced:
        return money(link.usb_saves_milli, link.currency)
    return size(link.usb_saves_bytes)
