"""Signed documents: put by people, kept as they were signed, checked here, believed only by whoever verifies them.

The kind inside the signed bytes decides which role may put one: a token of the wrong role cannot even bring a document
that somebody else signed. Whether the signatures hold is decided by the gateway's trusted set (a service), and again by
each truck. A document is named by the SHA-256 of its signed bytes, so putting it twice is putting it once.
"""

from __future__ import annotations

import asyncio
from typing import Literal, TypeVar

from aiohttp import web

from gateway.api.auth import ADMIN, OPERATOR, PUBLISHER, SIGNER, VIEWER, Role, forbidden
from gateway.api.dispatch import is_unchanged, json_response, not_modified
from gateway.api.operations import COSE, Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Bytes, DigestPath, Millis, PageQuery, Shape, bad_cursor
from gateway.ownkeys import GatewayKeys
from protocol import cose
from protocol.documents import Document, parse_document, read_document
from protocol.errors import PeerError, RollbackError
from protocol.numbers import DocumentKind
from store.fleet.errors import DocumentConflictError
from store.fleet.records import DocumentRecord, DocumentSummary

KindName = Literal["root", "delegation", "config", "manifest", "rollout"]
D = TypeVar("D", bound=Document)

_NEEDS: dict[DocumentKind, frozenset[Role]] = {
    DocumentKind.ROOT: ADMIN,
    DocumentKind.DELEGATION: ADMIN,
    DocumentKind.CONFIG: OPERATOR,
    DocumentKind.ROLLOUT: OPERATOR,
    DocumentKind.MANIFEST: PUBLISHER,
}


class DocumentsQuery(PageQuery, frozen=True):
    """Documents, newest first; of one kind, or of one stream (kind and name), which is then its history."""

    kind: KindName | None = None
    name: str | None = None


class DocumentShape(Shape, frozen=True):
    """A signed document without its bytes. `name` is the stream in which its versions count."""

    digest: str
    kind: str
    version: int
    name: str
    bundle: str | None
    group: str | None
    trucks: list[str]
    issued_s: int
    expires_s: int
    size: Bytes
    received_ms: Millis
    put_by: str


class DocumentPage(Shape, frozen=True):
    """Documents."""

    items: list[DocumentShape]
    next: str | None


class OwnKeyShape(Shape, frozen=True):
    """One public key of the gateway's own: `freshness` (Ed25519) or `exchange` (EDHOC, P-256), and its number."""

    kind: Literal["freshness", "exchange"]
    number: int
    public: str


class TrustShape(Shape, frozen=True):
    """What a client must know to make documents: the newest root and role table, to be fetched by their digests.

    `freshness_key` is the key of this gateway (Ed25519, hex) that signs now; `keys` are all that it holds. `warnings`
    say what keeps trust from working, each with its next step; `to_sign_again` are documents that trucks should have
    but that only revoked keys signed.
    """

    freshness_key: str
    root: DocumentShape | None
    delegation: DocumentShape | None
    keys: list[OwnKeyShape]
    warnings: list[str]
    to_sign_again: list[DocumentShape]


@operation(
    "PUT",
    "/v1/documents",
    tag="documents",
    needs=SIGNER,
    status=201,
    statuses=(200,),
    consumes=COSE,
    problems=(409, 422),
)
async def put_document(call: Call, body: bytes) -> DocumentShape | web.StreamResponse:
    """Put a signed document.

    Takes a COSE_Sign1 or COSE_Sign. Configuration and rollouts need the role operator, manifests the role publisher,
    roots and delegations the role admin. Answers 201, or 200 when it was there already.
    """
    kind = await asyncio.to_thread(kind_of, body)
    return await put_signed(call, body, kind)


@operation("GET", "/v1/documents", tag="documents", needs=VIEWER)
async def list_documents(call: Call, query: DocumentsQuery) -> DocumentPage:
    """List signed documents, newest first."""
    found = await call.api.fleet.documents(
        kind=None if query.kind is None else DocumentKind[query.kind.upper()],
        name=query.name,
        after=document_cursor(query.after),
        limit=query.served + 1,
    )
    items = [document_shape(each) for each in found[: query.served]]
    following = cursor_after(found[query.served - 1]) if len(found) > query.served else None
    return DocumentPage(items=items, next=following)


@operation("GET", "/v1/documents/{digest}", tag="documents", needs=VIEWER, statuses=(304,), media=(COSE,))
async def get_document(call: Call, path: DigestPath) -> web.StreamResponse:
    """Fetch a document's signed bytes."""
    record = await call.api.fleet.document(path.raw)
    if record is None:
        raise Problem(404, "no document of that digest is here")
    response = web.Response(body=record.signed, content_type=COSE)
    response.etag = path.digest
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    return not_modified(response) if is_unchanged(call.request, path.digest) else response


@operation("GET", "/v1/trust", tag="documents", needs=VIEWER)
async def get_trust(call: Call) -> TrustShape:
    """Name the newest root and delegation, and say what is wrong with trust."""
    root = await call.api.fleet.newest_document(DocumentKind.ROOT)
    delegation = await call.api.fleet.newest_document(DocumentKind.DELEGATION)
    services = call.api.services
    state = None if services.trust is None else services.trust()
    unsigned = [] if state is None else [await call.api.fleet.document(each) for each in sorted(state.unsigned)]
    return TrustShape(
        freshness_key=services.freshness_key().hex(),
        root=None if root is None else document_shape(root),
        delegation=None if delegation is None else document_shape(delegation),
        keys=[] if state is None else _own_keys(state.keys),
        warnings=[] if state is None else state.warnings,
        to_sign_again=[document_shape(each) for each in unsigned if each is not None],
    )


def _own_keys(keys: GatewayKeys) -> list[OwnKeyShape]:
    exchange = [OwnKeyShape("exchange", number, key.public.hex()) for number, key in keys.exchange_keys.items()]
    freshness = [OwnKeyShape("freshness", number, key.public.hex()) for number, key in keys.freshness_keys.items()]
    return [*freshness, *exchange]


async def put_signed(call: Call, signed: bytes, kind: DocumentKind) -> web.StreamResponse:
    """Check the role for a kind of document, hand it to the trusted set, and answer with its record."""
    needs = _NEEDS.get(kind)
    if needs is None:
        raise Problem(422, "a desired state is made by the gateway itself and never put")
    if not call.actor.role.may(needs):
        raise forbidden(call.actor, needs)
    digest = cose.digest(signed)
    known = await call.api.fleet.document(digest)
    try:
        # Also one that is here: a person who pushes it again may confirm it after a restore.
        record = await call.api.services.accept_document(signed, call.actor.name)
    except (DocumentConflictError, RollbackError) as error:
        raise Problem(409, str(error)) from error
    except PeerError as error:
        raise Problem(422, str(error)) from error
    response = json_response(call.request, document_shape(record), 200 if known else 201)
    response.headers["Location"] = f"/v1/documents/{digest.hex()}"
    return response


def document_shape(record: DocumentRecord | DocumentSummary) -> DocumentShape:
    """Return a document as the API shows it."""
    return DocumentShape(
        digest=record.digest.hex(),
        kind=record.kind.name.lower(),
        version=record.version,
        name=record.name,
        bundle=record.bundle,
        group=record.group,
        trucks=list(record.trucks),
        issued_s=record.issued_s,
        expires_s=record.expires_s,
        size=record.size if isinstance(record, DocumentSummary) else len(record.signed),
        received_ms=record.received_ms,
        put_by=record.put_by,
    )


async def read_stored(record: DocumentRecord, kind: type[D]) -> D:
    """Return what a stored document says; it was verified when it was put. Large ones are read in a thread."""
    if len(record.signed) < 16_384:
        return parse_document(record.signed, kind)[0]
    document, _ = await asyncio.to_thread(parse_document, record.signed, kind)
    return document


def kind_of(signed: bytes) -> DocumentKind:
    """Return the kind that signed bytes say they are; raise a 422 `Problem`."""
    try:
        return read_document(cose.parse(signed).payload).document
    except PeerError as error:
        raise Problem(422, str(error)) from error


def cursor_after(record: DocumentSummary) -> str:
    """Return the cursor that continues a listing behind a document."""
    return f"{record.received_ms}.{record.digest.hex()}"


def document_cursor(after: str | None) -> tuple[int, bytes] | None:
    """Return where a listing of documents continues; raise a 400 `Problem`."""
    if after is None:
        return None
    time, _, digest = after.partition(".")
    if not time.isascii() or not time.isdigit() or len(time) > 18 or len(digest) != 64:
        raise bad_cursor()
    try:
        return int(time), bytes.fromhex(digest)
    except ValueError as error:
        raise bad_cursor() from error


OPERATIONS = (put_document, list_documents, get_document, get_trust)
