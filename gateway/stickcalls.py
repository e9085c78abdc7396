"""The calls about couriers' sticks, as part of `gateway.client.Client`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from gateway.apicalls import ITEMS_MAX, ApiCalls, decode
from gateway.apicalls import path_part as _part
from gateway.contentanswers import Carried, CourierStick, StickPage, StickPlan

JSON = "application/json"
OCTETS = "application/octet-stream"


class StickCalls(ApiCalls):
    """Sticks are planned, listed, revoked; what they bring is handed in; files are fetched for them."""

    async def create_stick(
        self, trucks: Sequence[str], *, sealed: bool = False, packs: bool = False, expires_in_s: int | None = None
    ) -> StickPlan:
        """Plan a stick for trucks by name."""
        wanted = {"trucks": list(trucks), "sealed": sealed, "packs": packs, "expires_in_s": expires_in_s}
        body = msgspec.json.encode({name: value for name, value in wanted.items() if value is not None})
        return decode(await self.call("POST", "/v1/sticks", body=body, content_type=JSON), StickPlan)

    async def stick(self, stick: str) -> StickPlan:
        """Return a stick's plan once more; `ApiError` 409 when it was revoked or more is desired by now."""
        return await self.get(f"/v1/sticks/{_part(stick)}", StickPlan)

    async def sticks(self, *, limit: int = ITEMS_MAX) -> list[CourierStick]:
        """List the sticks that were planned, newest first."""
        return await self.list_all("/v1/sticks", StickPage, {}, limit)

    async def revoke_stick(self, stick: str) -> CourierStick:
        """Revoke a stick that was lost."""
        return decode(await self.call("DELETE", f"/v1/sticks/{_part(stick)}"), CourierStick)

    async def take_carried(self, data: bytes, *, stick: str | None = None) -> Carried:
        """Bring in a file that a truck gave a courier; doing it again changes nothing."""
        answer = await self.call("POST", "/v1/carried", query={"stick": stick}, body=data, content_type=OCTETS)
        return decode(answer, Carried)

    async def blob(self, digest: str, *, first: int = 0) -> AsyncIterator[bytes]:
        """Yield a blob from byte `first` on, NOT verified."""
        headers = {"Range": f"bytes={first}-"} if first else None
        async for piece in self.download(f"/v1/blobs/{_part(digest)}", {}, headers):
            yield piece
