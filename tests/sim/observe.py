"""Watching the product's stores from outside, so that each parcel has a history and each request its nonce."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import edge.recorder
import gateway.ledger
import store.fleet.ingest
import store.ledger
import store.parcels
import store.purses
import store.sendings
from tests.sim.loop import owner_of_task
from tests.sim.network import IP_AND_UDP_BYTES, VirtualLink, VirtualSocket
from tests.sim.world import World


@contextmanager
def watching(world: World) -> Iterator[None]:
    """Note what happens to parcels while the block lasts."""
    queue, ingest = store.parcels.ParcelQueue, store.fleet.ingest.Ingest
    sendings = store.sendings.Sendings
    ledger, purses, recorder = store.ledger.Ledger, store.purses.Purses, edge.recorder.Recorder
    real = (
        queue._insert,
        queue.mark_sent,
        queue._deliver,
        sendings._put_aside,
        ingest.ingest,
        ledger.charge,
        recorder.clock_known,
        ledger.reserve,
        purses._open,
        gateway.ledger.GatewayLedger._add,
        VirtualSocket.sendmsg,
        VirtualSocket.recvmsg,
    )
    history = world.history

    def carried(link: VirtualLink, is_up: bool, data: bytes, fate: str) -> None:
        history.note(link.truck, f"{link.name} {'up' if is_up else 'down'} {len(data)} {fate}")
        if is_up and link.count.total_bytes > world.joined_bytes.get((link.truck, link.name), 1 << 60):
            nonces.request(link.truck, link.name, data)

    def refuse(name: str, problem: str) -> Exception:
        world.fail(name, problem)
        assert world.failure is not None
        return world.failure

    nonces = NonceWatch(refuse)
    world.on_cloned = nonces.cloned
    world.network.on_carried = carried

    async def clock_known(self: Any) -> None:
        await real[6](self)
        world.truth.clock_told(truck(), self._clock.boot)

    def charge(self: Any, link: str, precedence: Any, cause: str, direction: str, size: int, **named: Any) -> None:
        real[5](self, link, precedence, cause, direction, size, **named)
        world.spending.came_unasked(machine(), link, size)

    def reserve(self: Any, link: str, *arguments: Any, **named: Any) -> Any:
        made = real[7](self, link, *arguments, **named)
        world.spending.capped(machine(), link, self.cap_bytes(link))
        return made

    def open_period(self: Any, link: str, period: int, *, carries: bool) -> None:
        world.spending.opened(machine(), link, period, carries=carries)
        real[8](self, link, period, carries=carries)

    def add(self: Any, account: Any, direction: Any, byte_count: int, datagrams: int) -> None:
        real[9](self, account, direction, byte_count, datagrams)
        world.office.booked_bytes += byte_count

    def sendmsg(self: VirtualSocket, *arguments: Any, **named: Any) -> int:
        size: int = real[10](self, *arguments, **named)
        if self.link is None:
            world.office.carried_bytes += size + IP_AND_UDP_BYTES
        return size

    def recvmsg(self: VirtualSocket, *arguments: Any, **named: Any) -> Any:
        found = real[11](self, *arguments, **named)
        if self.link is None:
            world.office.carried_bytes += len(found[0]) + IP_AND_UDP_BYTES
        return found

    def machine() -> str:
        return str(owner_of_task.get().machine)

    def truck() -> str:
        owner = owner_of_task.get()
        return str(owner.name) if owner is not None else "?"

    def insert(self: Any, *arguments: Any, **named: Any) -> Any:
        parcel = real[0](self, *arguments, **named)
        history.parcel((truck(), parcel.epoch, parcel.sequence), f"queued {parcel.kind.name}")
        world.truth.parcel_made((truck(), parcel.epoch, parcel.sequence), parcel.kind, parcel.payload)
        return parcel

    def mark_sent(self: Any, epoch: int, sequences: Any, now_s: int) -> Any:
        allowed = real[1](self, epoch, sequences, now_s)
        for sequence in allowed:
            history.parcel((truck(), epoch, sequence), "is sent")
        return allowed

    def deliver(self: Any, ranges: Any, epoch: int, now_s: int) -> Any:
        ranges = list(ranges)
        changed = real[2](self, ranges, epoch, now_s)
        if changed:
            history.note(truck(), f"delivered {changed} of {epoch:016x}: {ranges}")
        return changed

    def put_aside(self: Any, epoch: int, sequence: int, now_s: int, **changes: Any) -> Any:
        history.parcel((truck(), epoch, sequence), f"put aside {changes}")
        return real[3](self, epoch, sequence, now_s, **changes)

    async def stored(self: Any, items: Any) -> Any:
        results = await real[4](self, items)
        for each in results:
            name = each.item.truck, each.item.epoch, each.item.sequence
            history.parcel(name, f"at the gateway: {each.status.name}, by {each.item.link}")
        return results

    queue._insert, queue.mark_sent, queue._deliver = insert, mark_sent, deliver  # type: ignore[method-assign]
    sendings._put_aside, ingest.ingest = put_aside, stored  # type: ignore[method-assign]
    ledger.charge, ledger.reserve = charge, reserve  # type: ignore[method-assign]
    purses._open = open_period  # type: ignore[method-assign]
    recorder.clock_known = clock_known  # type: ignore[method-assign]
    gateway.ledger.GatewayLedger._add = add  # type: ignore[method-assign]
    VirtualSocket.sendmsg, VirtualSocket.recvmsg = sendmsg, recvmsg  # type: ignore[method-assign]
    try:
        yield
    finally:
        VirtualSocket.sendmsg, VirtualSocket.recvmsg = real[10], real[11]  # type: ignore[method-assign]
        gateway.ledger.GatewayLedger._add = real[9]  # type: ignore[method-assign]
        recorder.clock_known = real[6]  # type: ignore[method-assign]
        ledger.charge, ledger.reserve = real[5], real[7]  # type: ignore[method-assign]
        purses._open = real[8]  # type: ignore[method-assign]
        queue._insert, queue.mark_sent, queue._deliver = real[0], real[1], real[2]  # type: ignore[method-assign]
        sendings._put_aside, ingest.ingest = real[3], real[4]  # type: ignore[method-assign]


class NonceWatch:
    """No request may protect two different texts under one key and one number (RFC 8613 section 7.2.1)."""

    def __init__(self, fail: Callable[[str, str], Exception]) -> None:
        self._fail = fail
        self._seen: dict[tuple[str, str], dict[bytes, bytes]] = {}

    def cloned(self, machine: str, copy: str) -> None:
        """Know that a second machine has the sessions of a first one: what was used there may not be used here."""
        for (of, link), seen in list(self._seen.items()):
            if of == machine:
                self._seen[(copy, link)] = dict(seen)

    def request(self, truck: str, link: str, data: bytes) -> None:
        """Look at a datagram that a truck sends."""
        option, payload = _oscore(data)
        if option is None:
            # A message_1: a new session is about to begin, under another key.
            self._seen.pop((truck, link), None)
            return
        seen = self._seen.setdefault((truck, link), {})
        digest = hashlib.sha256(payload).digest()
        if seen.setdefault(option, digest) != digest:
            raise self._fail(truck, f"the nonce {option.hex()} protects two requests on {link}")


def _oscore(data: bytes) -> tuple[bytes | None, bytes]:
    """Return the OSCORE option (number 9) and the payload of a CoAP message."""
    at, number, found = 4 + (data[0] & 15), 0, None
    while at < len(data) and data[at] != 0xFF:
        delta, length = data[at] >> 4, data[at] & 15
        at += 1
        if delta == 13:
            delta, at = data[at] + 13, at + 1
        elif delta == 14:
            delta, at = int.from_bytes(data[at : at + 2], "big") + 269, at + 2
        if length == 13:
            length, at = data[at] + 13, at + 1
        elif length == 14:
            length, at = int.from_bytes(data[at : at + 2], "big") + 269, at + 2
        number += delta
        if number == 9:
            found = data[at : at + length]
        at += length
    return found, data[at + 1 :]
