"""Bundles: which versions were published, their files, and which of those are still to be uploaded."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gateway.api.auth import VIEWER
from gateway.api.documents import read_stored
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Bytes, Millis, PageQuery, Shape, bad_cursor
from protocol.documents import Manifest
from protocol.wire import Name
from store.fleet.records import BundleRecord

Label = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,30}$")]


class BundlePath(Shape, frozen=True):
    """A version of a bundle in an address."""

    name: Name
    version: Label


class FilesQuery(PageQuery, frozen=True):
    """Files in the order of their paths; with `missing` only those that were not uploaded yet."""

    after: Annotated[str, Meta(max_length=2_048, description="a path")] | None = None
    missing: bool = False


class BundleShape(Shape, frozen=True):
    """One version of a bundle; `version` is its label, `number` counts."""

    name: str
    version: str
    number: int
    manifest: str
    content: str
    title: str
    files: int
    size: Bytes
    received_ms: Millis
    put_by: str


class BundlePage(Shape, frozen=True):
    """Bundle versions, in the order of names and versions."""

    items: list[BundleShape]
    next: str | None


class FileShape(Shape, frozen=True):
    """One file; `here` tells whether its bytes were uploaded."""

    path: str
    size: Bytes
    digest: str
    here: bool


class BundleDetail(BundleShape, frozen=True):
    """A bundle version with a page of its files, and what is still to be uploaded of all of them."""

    missing_files: int
    missing_bytes: Bytes
    items: list[FileShape]
    next: str | None


@operation("GET", "/v1/bundles", tag="bundles", needs=VIEWER)
async def list_bundles(call: Call, query: PageQuery) -> BundlePage:
    """List the published bundle versions."""
    after = None
    if query.after is not None:
        name, slash, label = query.after.partition("/")
        if not slash:
            raise bad_cursor()
        after = (name, label)
    found = await call.api.fleet.bundles(after=after, limit=query.served + 1)
    items = [_bundle(each) for each in found[: query.served]]
    return BundlePage(items=items, next=f"{items[-1].name}/{items[-1].version}" if len(found) > query.served else None)


@operation("GET", "/v1/bundles/{name}/{version}", tag="bundles", needs=VIEWER)
async def get_bundle(call: Call, path: BundlePath, query: FilesQuery) -> BundleDetail:
    """Show one version of a bundle with its files.

    A publisher asks with `missing=true` what to upload: files that are here already, from whatever bundle, are not sent
    again. A rollout should wait until `missing_files` is 0.
    """
    record = await known_bundle(call, path.name, path.version)
    manifest = await manifest_of(call, record.manifest)
    missing = frozenset(await call.api.fleet.missing_blobs([file.digest for file in manifest.files]))
    files = [
        file
        for file in manifest.files
        if (query.after is None or file.path > query.after) and (not query.missing or file.digest in missing)
    ]
    page = files[: query.served]
    sizes = {file.digest: file.size for file in manifest.files if file.digest in missing}
    return BundleDetail(
        **{field: getattr(_bundle(record), field) for field in BundleShape.__struct_fields__},
        missing_files=sum(file.digest in missing for file in manifest.files),
        missing_bytes=sum(sizes.values()),
        items=[
            FileShape(path=file.path, size=file.size, digest=file.digest.hex(), here=file.digest not in missing)
            for file in page
        ],
        next=page[-1].path if len(files) > len(page) else None,
    )


async def known_bundle(call: Call, name: str, label: str) -> BundleRecord:
    """Return a bundle version; raise a 404 `Problem`."""
    record = await call.api.fleet.bundle(name, label)
    if record is None:
        raise Problem(404, "no bundle of that name and version was published")
    return record


async def manifest_of(call: Call, digest: bytes) -> Manifest:
    """Return a manifest by its digest; raise a 404 `Problem`."""
    record = await call.api.fleet.document(digest)
    if record is None:
        raise Problem(404, "the manifest of that digest is not here")
    return await read_stored(record, Manifest)


def _bundle(record: BundleRecord) -> BundleShape:
    return BundleShape(
        name=record.name,
        version=record.label,
        number=record.version,
        manifest=record.manifest.hex(),
        content=record.content,
        title=record.title,
        files=record.files,
        size=record.size,
        received_ms=record.received_ms,
        put_by=record.put_by,
    )


OPERATIONS = (list_bundles, get_bundle)
