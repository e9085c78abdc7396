"""One page of a SQLite database taken apart and put together again (the file format, sections 1.6 and 1.7).

A b-tree page is its cells in the order of their keys, and what the page adds to them: how many there are, in which
order they lie, the pages that an inner one points to, and what is in the places between. The pointers to cells and most
of the header follow from that. Cells are laid from the end of the page towards its head; a page on which they are not
so regular says where the holes are. No database is opened, and no version of SQLite matters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from protocol.errors import MalformedError
from protocol.pack.cursor import Cursor, unzigzag, varint, zigzag

INNER_INDEX, INNER_TABLE, LEAF_INDEX, LEAF_TABLE = 2, 5, 10, 13
KINDS = frozenset({INNER_INDEX, INNER_TABLE, LEAF_INDEX, LEAF_TABLE})
_INNER = frozenset({INNER_INDEX, INNER_TABLE})
_CHILD_BYTES = 4
_CELL_BYTES_MIN = 4
_ORDERED, _EXTRAS = 16, 32  # flags beside a kind: cells lie in another order; there are holes, or free places


@dataclass(frozen=True, slots=True)
class Page:
    """A b-tree page taken apart.

    `cells` are the places (offset within the page, length) of the cells in the order of their keys, without the page
    number in front of an inner page's. `told` are `kind`, `count`, `children`, `order`, `extras` and `junk` as the
    sections of a database hold them.
    """

    cells: tuple[tuple[int, int], ...]
    told: tuple[bytes, bytes, bytes, bytes, bytes, bytes]


def take_apart(page: bytes, start: int) -> Page | None:
    """Return a b-tree page's parts, or None for what is none; `start` is 100 on the first page, 0 on the others."""
    kind = page[start]
    if kind not in KINDS:
        return None
    head = start + (12 if kind in _INNER else 8)
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    first = head + 2 * count
    if first > len(page):
        return None
    places = [int.from_bytes(page[at : at + 2], "big") for at in range(head, first, 2)]
    try:
        lengths = [_cell_length(page, at, kind) for at in places]
    except IndexError:
        return None
    lying = sorted(range(count), key=lambda number: -places[number])
    ordered = lying != list(range(count))
    holes, junk = bytearray(), bytearray()
    number_of_holes = last_hole = 0
    at = len(page)
    for step, number in enumerate(lying):
        end = places[number] + lengths[number]
        if end > at or places[number] < first:
            return None
        if end < at:
            holes += varint(step - last_hole) + varint(at - end)
            junk += page[end:at]
            number_of_holes, last_hole = number_of_holes + 1, step
        at = places[number]
    left = page[first:at].rstrip(b"\0")
    # The start of the free blocks, of the cells (0 means 65,536), and the bytes lost in fragments.
    free, content, lost = page[start + 1 : start + 3], page[start + 5 : start + 7], page[start + 7]
    away = zigzag((int.from_bytes(content, "big") or 65_536) - at)
    is_plain = not (number_of_holes or left or any(free) or lost or away)
    extras = b"" if is_plain else varint(number_of_holes) + holes + free + bytes([lost]) + varint(away)
    extras += b"" if is_plain else varint(len(left))
    order = bytearray()
    if ordered:
        before = -1
        for number in lying:
            order += varint(zigzag(number - before - 1))
            before = number
    skip = _CHILD_BYTES if kind in _INNER else 0
    children = b"".join(page[place : place + skip] for place in places) + page[start + 8 : head]
    told = kind + (_ORDERED if ordered else 0) + (0 if is_plain else _EXTRAS)
    return Page(
        tuple((place + skip, length - skip) for place, length in zip(places, lengths, strict=True)),
        (bytes([told]), varint(count), children, bytes(order), extras, bytes(junk + left)),
    )


@dataclass(frozen=True, slots=True)
class Sections:
    """What the b-tree pages of a database add to their cells, read page by page."""

    counts: Cursor
    children: Cursor
    orders: Cursor
    extras: Cursor
    junk: Cursor


def put_together(told: int, size: int, head: bytes, sections: Sections, read: Callable[[int], bytes]) -> bytes:
    """Return a b-tree page of `size` bytes from what `take_apart` told of it; raise `MalformedError`.

    `read(n)` gives the next n bytes of cells; `head` lies before the page's own header.
    """
    kind = told & 15
    if kind not in KINDS or told > _ORDERED + _EXTRAS + 15:
        raise MalformedError("a database's page of a kind that does not exist")
    start = len(head)
    body = start + (12 if kind in _INNER else 8)
    count = sections.counts.varint((size - body) // 2)
    first = body + 2 * count
    skip = _CHILD_BYTES if kind in _INNER else 0
    children = sections.children.exactly(skip * (count + 1))
    cells = [children[skip * number :][:skip] + _read_cell(kind, size, read) for number in range(count)]
    lying = _read_order(sections.orders, count) if told & _ORDERED else range(count)
    holes, free, lost, away, left = _read_extras(sections, size) if told & _EXTRAS else ({}, b"\0\0", 0, 0, b"")
    out = bytearray(size)
    out[:start] = head
    places = [0] * count
    at = size
    for step, number in enumerate(lying):
        hole = holes.get(step, b"")
        at -= len(hole) + len(cells[number])
        if at < first:
            raise MalformedError("the cells of a database's page do not fit")
        places[number] = at
        out[at : at + len(cells[number]) + len(hole)] = cells[number] + hole
    if first + len(left) > at or len(holes) > count:
        raise MalformedError("the parts of a database's page do not fit")
    out[first : first + len(left)] = left
    content = at + away
    if not 0 <= content <= 65_536:
        raise MalformedError("a database's page begins nowhere")
    out[start:body] = (
        bytes([kind])
        + free
        + count.to_bytes(2, "big")
        + (content & 0xFFFF).to_bytes(2, "big")
        + (bytes([lost]) + (children[skip * count :] if skip else b""))
    )
    out[body:first] = b"".join(place.to_bytes(2, "big") for place in places)
    return bytes(out)


def _read_order(orders: Cursor, count: int) -> list[int]:
    lying = []
    before = -1
    for _ in range(count):
        before = before + 1 + unzigzag(orders.varint(4 * count + 4))
        lying.append(before)
    if sorted(lying) != list(range(count)):
        raise MalformedError("the order of a database's page names a cell twice")
    return lying


def _read_extras(sections: Sections, size: int) -> tuple[dict[int, bytes], bytes, int, int, bytes]:
    fields = sections.extras
    holes: dict[int, bytes] = {}
    step = 0
    for _ in range(fields.varint(size)):
        step += fields.varint(size)
        holes[step] = sections.junk.exactly(fields.varint(size))
    free, lost = fields.exactly(2), fields.byte()
    away = unzigzag(fields.varint(1 << 18))
    return holes, free, lost, away, sections.junk.exactly(fields.varint(size))


def _local(payload: int, kind: int, size: int) -> int:
    """Return how many bytes of a payload lie in its cell, the number of the page with the rest included."""
    most = size - 35 if kind == LEAF_TABLE else (size - 12) * 64 // 255 - 23
    if payload <= most:
        return payload
    least = (size - 12) * 32 // 255 - 23
    local = least + (payload - least) % (size - 4)
    return (local if local <= most else least) + 4


def _cell_length(page: bytes, at: int, kind: int) -> int:
    """Return the length of the cell at a place; raise `IndexError` where the page ends before it."""
    start = at
    at += _CHILD_BYTES if kind in _INNER else 0
    if kind == INNER_TABLE:
        at = _skip(page, at)[1]
    else:
        payload, at = _skip(page, at)
        if kind == LEAF_TABLE:
            at = _skip(page, at)[1]
        at += _local(payload, kind, len(page))
    length = max(_CELL_BYTES_MIN, at - start)
    if start + length > len(page):
        raise IndexError
    return length


def _skip(page: bytes, at: int) -> tuple[int, int]:
    """Return a number of SQLite's (big-endian groups of 7 bits, the ninth byte whole) and the place behind it."""
    value = 0
    for _ in range(8):
        byte = page[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | page[at], at + 1


def _read_cell(kind: int, size: int, read: Callable[[int], bytes]) -> bytes:
    """Return the next cell, without the page number in front of an inner page's."""
    head = bytearray()
    payload = _read_number(head, read)
    if kind == INNER_TABLE:
        return bytes(head)
    if kind == LEAF_TABLE:
        _read_number(head, read)
    local = _local(payload, kind, size)
    if kind in (LEAF_TABLE, LEAF_INDEX):
        local = max(local, _CELL_BYTES_MIN - len(head))
    if local > size:
        raise MalformedError("a cell is larger than its page")
    return bytes(head) + read(local)


def _read_number(head: bytearray, read: Callable[[int], bytes]) -> int:
    value = 0
    for number in range(9):
        byte = read(1)[0]
        head.append(byte)
        if number == 8:
            return value << 8 | byte
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value
    raise AssertionError("the ninth byte ends a number")
