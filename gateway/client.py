"""A typed Python client of the gateway's HTTP API: `Client` for asyncio, `SyncClient` for scripts.

Answers are the structs of `gateway.answers` and `gateway.contentanswers`; errors are those of `gateway.apicalls`. Times
are Unix ms. Deliberately absent: signing. Documents come in signed, so that this module never sees a private key.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import msgspec

from gateway.answers import (
    AuditCheck,
    AuditPage,
    Change,
    Coverage,
    DocumentPage,
    DocumentRow,
    EnrolmentCode,
    Event,
    EventPage,
    NewToken,
    Receipt,
    ReceiptPage,
    Samples,
    SignInLink,
    Truck,
    TruckConfig,
    TruckDetail,
    TruckPage,
    Trust,
)
from gateway.apicalls import ITEMS_MAX, PAGE_ITEMS, ApiError, UnreachableError, decode
from gateway.apicalls import path_part as _part
from gateway.apicalls import stamp as _stamp
from gateway.contentanswers import (
    Bundle,
    BundleDetail,
    BundlePage,
    Quote,
    Rollout,
    RolloutDetail,
    RolloutPage,
    Upload,
)
from gateway.evidence import Verification
from gateway.moneycalls import MoneyCalls
from gateway.stickcalls import StickCalls

__all__ = ["ApiError", "Client", "SyncClient", "UnreachableError"]

P = ParamSpec("P")
T = TypeVar("T")

COSE = "application/cose"
JSON = "application/json"
OCTETS = "application/octet-stream"


class Client(MoneyCalls, StickCalls):
    """The gateway at `url`, for the holder of `token`; use as an async context manager."""

    # Trucks.

    async def trucks(self, *, group: str | None = None, limit: int = ITEMS_MAX) -> list[Truck]:
        """List trucks in the order of their names."""
        return await self.list_all("/v1/trucks", TruckPage, {"group": group}, limit)

    async def truck(self, truck: str) -> TruckDetail:
        """Show one truck."""
        return await self.get(f"/v1/trucks/{_part(truck)}", TruckDetail)

    async def revoke(self, truck: str) -> TruckDetail:
        """Shut a truck out; what it sent stays."""
        return decode(await self.call("DELETE", f"/v1/trucks/{_part(truck)}"), TruckDetail)

    async def enrol(self, truck: str, *, group: str | None = None, expires_in_s: int | None = None) -> EnrolmentCode:
        """Make a one-time enrolment code."""
        wanted = {"truck": truck, "group": group, "expires_in_s": expires_in_s}
        body = msgspec.json.encode({name: value for name, value in wanted.items() if value is not None})
        return decode(await self.call("POST", "/v1/enrolments", body=body, content_type=JSON), EnrolmentCode)

    # Telemetry and evidence.

    async def samples(
        self,
        truck: str,
        *,
        channels: Sequence[str] = (),
        since_ms: int | None = None,
        until_ms: int | None = None,
        step_s: int = 0,
        limit: int | None = None,
        after: str | None = None,
    ) -> Samples:
        """Return one page of a truck's telemetry; `next` of it is the `after` of the next."""
        query = _samples_query(channels, since_ms, until_ms, step_s) | {"limit": limit, "after": after}
        return await self.get(f"/v1/trucks/{_part(truck)}/samples", Samples, query)

    async def samples_file(
        self,
        truck: str,
        form: str,
        *,
        channels: Sequence[str] = (),
        since_ms: int | None = None,
        until_ms: int | None = None,
        step_s: int = 0,
    ) -> AsyncIterator[bytes]:
        """Yield a file of a truck's telemetry: `csv`, `senml-json`, `senml-cbor` or `parquet`."""
        query = _samples_query(channels, since_ms, until_ms, step_s) | {"format": form}
        async for piece in self.download(f"/v1/trucks/{_part(truck)}/samples", query):
            yield piece

    async def events(
        self, truck: str, *, since_ms: int | None = None, until_ms: int | None = None, limit: int = ITEMS_MAX
    ) -> list[Event]:
        """List a truck's events in the order of their arrival."""
        query = {"since": _stamp(since_ms), "until": _stamp(until_ms)}
        return await self.list_all(f"/v1/trucks/{_part(truck)}/events", EventPage, query, limit)

    async def receipts(self, truck: str, *, limit: int = ITEMS_MAX) -> list[Receipt]:
        """List a truck's receipts in the order of their arrival."""
        return await self.list_all(f"/v1/trucks/{_part(truck)}/receipts", ReceiptPage, {}, limit)

    async def coverage(
        self, truck: str, *, since_ms: int | None = None, until_ms: int | None = None, step_s: int | None = None
    ) -> Coverage:
        """Return how much of a period is at the gateway, by channel and steps of 3600 or 86400 s."""
        query = {"since": _stamp(since_ms), "until": _stamp(until_ms), "step": step_s}
        return await self.get(f"/v1/trucks/{_part(truck)}/coverage", Coverage, query)

    async def evidence(
        self, truck: str, *, since_ms: int | None = None, until_ms: int | None = None
    ) -> AsyncIterator[bytes]:
        """Yield a truck's signed evidence of a period, to be verified by `gateway.evidence.Verifier`."""
        query = {"since": _stamp(since_ms), "until": _stamp(until_ms)}
        async for piece in self.download(f"/v1/trucks/{_part(truck)}/evidence", query):
            yield piece

    async def verification(
        self, truck: str, *, since_ms: int | None = None, until_ms: int | None = None
    ) -> Verification:
        """Return what the gateway says of a truck's evidence."""
        query = {"since": _stamp(since_ms), "until": _stamp(until_ms)}
        return await self.get(f"/v1/trucks/{_part(truck)}/verification", Verification, query)

    # Tokens and the audit log.

    async def create_token(self, name: str, *, role: str) -> NewToken:
        """Make a token of a role; its text is in this answer alone."""
        body = msgspec.json.encode({"name": name, "role": role})
        return decode(await self.call("POST", "/v1/tokens", body=body, content_type=JSON), NewToken)

    async def audit(self, *, after: int | None = None, limit: int = PAGE_ITEMS) -> AuditPage:
        """Return a page of the audit log, newest first, of the entries before the id `after`."""
        return await self.get("/v1/audit", AuditPage, {"after": after, "limit": limit})

    async def audit_check(self) -> AuditCheck:
        """Return what the gateway says of its own chain."""
        return await self.get("/v1/audit/check", AuditCheck)

    # Documents.

    async def put_document(self, signed: bytes) -> DocumentRow:
        """Put a signed document; putting it twice is putting it once."""
        return decode(await self.call("PUT", "/v1/documents", body=signed, content_type=COSE), DocumentRow)

    async def document(self, digest: str) -> bytes:
        """Return a document's signed bytes, NOT verified."""
        return (await self.call("GET", f"/v1/documents/{_part(digest)}")).body

    async def documents(
        self, *, kind: str | None = None, name: str | None = None, limit: int = ITEMS_MAX
    ) -> list[DocumentRow]:
        """List documents, newest first; of one kind, or of one stream."""
        return await self.list_all("/v1/documents", DocumentPage, {"kind": kind, "name": name}, limit)

    async def sign_in_link(self) -> SignInLink:
        """Make a link that signs a browser in to the console, once, with this token's role."""
        return decode(await self.call("POST", "/v1/session/link"), SignInLink)

    async def trust(self) -> Trust:
        """Name the newest root and delegation at the gateway."""
        return await self.get("/v1/trust", Trust)

    async def config(self, truck: str) -> TruckConfig:
        """Return the newest configuration for a truck; `ApiError` 404 if none was ever put."""
        return await self.get(f"/v1/trucks/{_part(truck)}/config", TruckConfig)

    # Blobs, bundles and rollouts.

    async def blob_offset(self, digest: str) -> int | None:
        """Return how many bytes of a blob are at the gateway; None when all of it is."""
        try:
            answer = await self.call("HEAD", f"/v1/blobs/{_part(digest)}")
        except ApiError as error:
            if error.status == 404:
                return 0
            raise
        return int(answer.headers.get("Upload-Offset", "0")) if answer.status == 204 else None

    async def put_piece(self, digest: str, piece: bytes, *, first: int, size: int) -> Upload:
        """Put bytes [first, first + len(piece)) of a blob of `size`; `ApiError.offset` says where else to go on."""
        headers = {"Content-Range": f"bytes {first}-{first + len(piece) - 1}/{size}"} if size else None
        path = f"/v1/blobs/{_part(digest)}"
        return decode(await self.call("PUT", path, body=piece, content_type=OCTETS, headers=headers), Upload)

    async def changes(
        self, *, truck: str | None = None, kinds: Sequence[str] = (), after: int | None = None
    ) -> AsyncIterator[Change]:
        """Yield changes as they are committed, for ever; a stream that breaks off goes on where it was."""
        query: dict[str, object] = {"truck": truck, "kinds": ",".join(kinds) or None}
        async for event in self.stream("/v1/stream", query, after):
            change = msgspec.json.decode(event.data, type=Change)
            yield msgspec.structs.replace(change, id=event.id)

    async def bundles(self, *, limit: int = ITEMS_MAX) -> list[Bundle]:
        """List the published bundle versions, in the order of names and versions."""
        return await self.list_all("/v1/bundles", BundlePage, {}, limit)

    async def bundle(
        self, name: str, version: str, *, missing: bool = False, after: str | None = None, limit: int = PAGE_ITEMS
    ) -> BundleDetail:
        """Show a bundle version with a page of its files; with `missing` only those still to be uploaded."""
        query = {"missing": "true" if missing else None, "after": after, "limit": limit}
        return await self.get(f"/v1/bundles/{_part(name)}/{_part(version)}", BundleDetail, query)

    async def rollouts(self, *, limit: int = ITEMS_MAX) -> list[Rollout]:
        """List rollouts, newest first."""
        return await self.list_all("/v1/rollouts", RolloutPage, {}, limit)

    async def rollout(self, identity: str, *, after: str | None = None) -> RolloutDetail:
        """Show a rollout (by the digest of its document) with a page of its trucks."""
        return await self.get(f"/v1/rollouts/{_part(identity)}", RolloutDetail, {"after": after, "limit": PAGE_ITEMS})

    async def create_rollout(self, signed: bytes) -> DocumentRow:
        """Start a rollout by its signed document; the digest is its id."""
        return decode(await self.call("POST", "/v1/rollouts", body=signed, content_type=COSE), DocumentRow)

    async def act_on_rollout(self, identity: str, action: str) -> Rollout:
        """Pause, resume or abort a rollout; `ApiError` 409 if it is in no state for that."""
        return decode(await self.call("POST", f"/v1/rollouts/{_part(identity)}/{_part(action)}"), Rollout)

    async def roll_back(self, identity: str, signed: bytes) -> DocumentRow:
        """Abort a rollout and start the signed one that takes it back."""
        path = f"/v1/rollouts/{_part(identity)}/rollback"
        return decode(await self.call("POST", path, body=signed, content_type=COSE), DocumentRow)

    async def quote(
        self,
        bundle: str,
        version: str,
        *,
        trucks: Sequence[str] = (),
        group: str | None = None,
        after: str | None = None,
    ) -> Quote:
        """Say what a bundle version would cost for trucks by name, or for a page of a group."""
        wanted = {"bundle": bundle, "version": version, "trucks": list(trucks) or None, "group": group, "after": after}
        body = msgspec.json.encode({name: value for name, value in wanted.items() if value is not None})
        return decode(await self.call("POST", "/v1/quotes", body=body, content_type=JSON), Quote)


def _sync(method: Callable[Concatenate[Client, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[SyncClient, P], T]:
    def call(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(method(self.client, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


def _iterated(
    method: Callable[Concatenate[Client, P], AsyncIterator[T]],
) -> Callable[Concatenate[SyncClient, P], Generator[T]]:
    def call(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        return self.iterate(method(self.client, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


class SyncClient:
    """The same for scripts: every method of `Client`, without `await`. Not for use inside a running event loop."""

    def __init__(self, url: str, token: str) -> None:
        self.client = Client(url, token)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        self.run(self.client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self.client.__aexit__(kind, error, trace))
        self._runner.__exit__(kind, error, trace)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run anything that awaits the async client (`self.client`)."""
        return self._runner.run(work)

    def iterate(self, work: AsyncIterator[T]) -> Generator[T]:
        """Iterate over what the async client yields; close it if you stop before its end."""
        try:
            while True:
                try:
                    yield self.run(_anext(work))
                except StopAsyncIteration:
                    return
        finally:
            close = getattr(work, "aclose", None)
            if close is not None:
                self.run(close())

    trucks = _sync(Client.trucks)
    truck = _sync(Client.truck)
    revoke = _sync(Client.revoke)
    enrol = _sync(Client.enrol)
    samples = _sync(Client.samples)
    samples_file = _iterated(Client.samples_file)
    evidence = _iterated(Client.evidence)
    verification = _sync(Client.verification)
    events = _sync(Client.events)
    receipts = _sync(Client.receipts)
    coverage = _sync(Client.coverage)
    ledger = _sync(Client.ledger)
    budget = _sync(Client.budget)
    budgets = _sync(Client.budgets)
    account = _sync(Client.account)
    history = _sync(Client.history)
    reconcile = _sync(Client.reconcile)
    bills = _sync(Client.bills)
    pools = _sync(Client.pools)
    alarms = _sync(Client.alarms)
    acknowledge_alarm = _sync(Client.acknowledge_alarm)
    create_token = _sync(Client.create_token)
    sign_in_link = _sync(Client.sign_in_link)
    audit = _sync(Client.audit)
    audit_check = _sync(Client.audit_check)
    put_document = _sync(Client.put_document)
    document = _sync(Client.document)
    documents = _sync(Client.documents)
    trust = _sync(Client.trust)
    config = _sync(Client.config)
    changes = _iterated(Client.changes)
    bundles = _sync(Client.bundles)
    bundle = _sync(Client.bundle)
    rollouts = _sync(Client.rollouts)
    rollout = _sync(Client.rollout)
    create_rollout = _sync(Client.create_rollout)
    act_on_rollout = _sync(Client.act_on_rollout)
    roll_back = _sync(Client.roll_back)
    quote = _sync(Client.quote)
    create_stick = _sync(Client.create_stick)
    stick = _sync(Client.stick)
    sticks = _sync(Client.sticks)
    revoke_stick = _sync(Client.revoke_stick)
    take_carried = _sync(Client.take_carried)
    blob = _iterated(Client.blob)


def _samples_query(
    channels: Sequence[str], since_ms: int | None, until_ms: int | None, step_s: int
) -> dict[str, object]:
    return {
        "channels": ",".join(channels) or None,
        "since": _stamp(since_ms),
        "until": _stamp(until_ms),
        "step": step_s,
    }


async def _anext(work: AsyncIterator[T]) -> T:
    return await anext(work)
