"""Nothing grows without a bound: not what is named here, and nothing else that the daemons hold on to either."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from protocol.numbers import PARCEL_WINDOW
from tests.sim.truck import SimEdge

# Of a handful of trucks: whatever holds more than this has begun to collect.
MEMBERS_MAX = 4_096
_OURS = ("gateway", "edge", "store", "protocol", "aiocoap")
_OBJECTS_MAX = 200_000


def overgrown(edge: SimEdge, state_bytes_max: int) -> list[str]:
    """Return what is larger than it is meant to be on a truck."""
    assert edge.uplink is not None
    forwarder = edge.uplink.forwarder
    sizes = {
        "parcels in memory": (len(forwarder._entries), 2 * PARCEL_WINDOW),
        "places in the heap": (len(forwarder._ready), 8 * PARCEL_WINDOW + 64),
        "sendings": (len(edge.uplink._sends), 4 * PARCEL_WINDOW),
        "reservations": (len(edge.ledger._reservations), 1_024),
        "jobs of the writer": (len(edge.writer._waiting), 1_024),  # type: ignore[attr-defined]
        "bytes of state.db": (edge.state.used_bytes(), state_bytes_max),
    }
    return [f"{size} {what}: at most {most} are meant to be" for what, (size, most) in sizes.items() if size > most]


def collecting(daemon: object) -> list[str]:
    """Return every container below a daemon that has more than `MEMBERS_MAX` members, by where it hangs."""
    found, seen, waiting = [], set[int](), deque([(type(daemon).__name__, daemon)])
    while waiting and len(seen) < _OBJECTS_MAX:
        place, each = waiting.popleft()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, dict | list | tuple | set | frozenset | deque):
            if len(each) > MEMBERS_MAX:
                found.append(f"{place} holds {len(each)}")
                continue
            members: Any = each.items() if isinstance(each, Mapping) else ((None, member) for member in each)
            waiting.extend((f"{place}[]", member) for _, member in members if _may_hold(member))
        else:
            waiting.extend((f"{place}.{name}", value) for name, value in _attributes(each) if _may_hold(value))
    return found


def _may_hold(value: object) -> bool:
    if isinstance(value, dict | list | tuple | set | frozenset | deque):
        return True
    return type(value).__module__.split(".")[0] in _OURS and not isinstance(value, type)


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    yield from getattr(value, "__dict__", {}).items()
    for cls in type(value).__mro__:
        for name in getattr(cls, "__slots__", ()):
            if hasattr(value, name):
                yield name, getattr(value, name)
