"""Which blobs are here, and how far the others are."""

from store.fleet.fleet import FleetStore
from store.fleet.records import BlobRecord, UploadRecord


async def test_an_upload_grows_and_ends_when_the_blob_is_here(fleet: FleetStore) -> None:
    digest = b"d" * 32
    await fleet.note_upload(digest, 100, 10, "ada", 1)
    await fleet.note_upload(digest, 100, 60, "bob", 2)
    assert await fleet.upload(digest) == UploadRecord(digest, 100, 60, 1, 2, "bob")
    assert await fleet.blob(digest) is None
    for now_ms in (3, 4):
        await fleet.put_blob(digest, 100, "bob", now_ms)
    assert await fleet.blob(digest) == BlobRecord(digest, 100, 3, "bob")
    assert await fleet.upload(digest) is None


async def test_missing_blobs_are_named_once_in_order_however_many(fleet: FleetStore) -> None:
    asked = [n.to_bytes(32, "big") for n in range(25_000)]
    for n in (0, 12_345, 24_999):
        await fleet.put_blob(asked[n], 1, "ada", 1)
    missing = await fleet.missing_blobs(asked + asked[:5])
    assert missing == [digest for n, digest in enumerate(asked) if n not in (0, 12_345, 24_999)]
    assert await fleet.missing_blobs([]) == []
