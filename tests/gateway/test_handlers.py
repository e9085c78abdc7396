"""What an authenticated truck is answered, resource by resource, over real exchanges on loopback."""

from __future__ import annotations

from tests.gateway.coapside import ScriptedTruck, Side, rows_from
from tests.gateway.fleets import NOW_S


async def test_an_upload_is_stored_and_acknowledged(side: Side, truck: ScriptedTruck) -> None:
    await truck.handshake("sat")
    ack = await truck.upload(truck.offer(), truck.batch(rows_from(NOW_S)))
    assert (ack.cumulative, ack.ranges, ack.refused) == (2, (), ())
