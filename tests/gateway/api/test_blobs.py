"""Uploads survive broken connections; what is not what its name says never becomes a blob."""

from __future__ import annotations

import asyncio
import errno
import random

import aiohttp
import pytest

from gateway.api.auth import Role
from gateway.api.limits import ApiLimits
from protocol import cose
from store.blobs import BlobStore
from tests.gateway.api.conftest import OCTETS, Answer, Gateway, Opener, World

DATA = random.Random(1).randbytes(700_000)
DIGEST = cose.digest(DATA)
PATH = f"/v1/blobs/{DIGEST.hex()}"


async def put(gateway: Gateway, first: int, end: int, *, size: int = len(DATA), path: str = PATH) -> Answer:
    headers = OCTETS | {"Content-Range": f"bytes {first}-{end - 1}/{size}"}
    return await gateway.ask("PUT", path, data=DATA[first:end], headers=headers, role=Role.PUBLISHER)


async def test_a_whole_blob_is_put_and_fetched(gateway: Gateway) -> None:
    answer = await gateway.ask("PUT", PATH, data=DATA, headers=OCTETS, role=Role.PUBLISHER)
    assert (answer.status, answer.json["received"]) == (201, len(DATA))
    assert (await gateway.ask("PUT", PATH, data=DATA, headers=OCTETS)).status == 200
    fetched = await gateway.get(PATH)
    assert fetched.body == DATA
    assert fetched.headers["Content-Disposition"] == "attachment"
    assert "sandbox" in fetched.headers["Content-Security-Policy"]
    assert await gateway.fleet.missing_blobs([DIGEST]) == []
    assert [each.action for each in await gateway.log()] == ["blob.put"]


async def test_pieces_resume_where_they_stopped(gateway: Gateway) -> None:
    assert (await gateway.ask("HEAD", PATH)).status == 404
    first = await put(gateway, 0, 300_000)
    assert (first.status, first.headers["Upload-Offset"], first.headers["Upload-Complete"]) == (202, "300000", "?0")
    partial = await gateway.ask("HEAD", PATH)
    assert (partial.status, partial.headers["Upload-Offset"]) == (204, "300000")
    assert (await gateway.get(PATH)).status == 404
    for start in (0, 299_999, 300_001):
        wrong = await put(gateway, start, len(DATA))
        assert (wrong.status, wrong.headers["Upload-Offset"], wrong.json["offset"]) == (409, "300000", 300_000)
    assert (await put(gateway, 300_000, len(DATA))).status == 201
    assert (await gateway.get(PATH)).body == DATA
    whole = await gateway.ask("HEAD", PATH)
    assert (whole.status, whole.headers["Content-Length"]) == (200, str(len(DATA)))


async def test_what_came_before_a_broken_connection_is_kept(gateway: Gateway) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
    head = (
        f"PUT {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.tokens[Role.PUBLISHER]}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(DATA)}\r\n\r\n"
    )
    writer.write(head.encode() + DATA[:400_000])
    await writer.drain()
    async with asyncio.timeout(60):
        while True:  # until the gateway has it
            answer = await gateway.ask("HEAD", PATH)
            if answer.status == 204 and int(answer.headers["Upload-Offset"]) >= 200_000:
                break
            await asyncio.sleep(0.01)
    writer.transport.abort()
    async with asyncio.timeout(60):
        while True:  # until the gateway noticed and let go of the upload
            offset = int((await gateway.ask("HEAD", PATH)).headers["Upload-Offset"])
            answer = await put(gateway, offset, len(DATA))
            if answer.status == 201:
                break
            assert answer.status == 409
            await asyncio.sleep(0.01)
    assert (await gateway.get(PATH)).body == DATA


async def test_a_wrong_whole_is_refused_and_the_upload_starts_over(gateway: Gateway) -> None:
    wrong = DATA[:-1] + b"\x00"
    answer = await gateway.ask("PUT", PATH, data=wrong, headers=OCTETS)
    assert (answer.status, answer.json["offset"]) == (422, 0)
    assert (await gateway.ask("HEAD", PATH)).status == 404
    assert await gateway.fleet.missing_blobs([DIGEST]) == [DIGEST]
    assert (await gateway.ask("PUT", PATH, data=DATA, headers=OCTETS)).status == 201


async def test_sizes_that_change_between_pieces_do_not_wedge_the_upload(gateway: Gateway) -> None:
    assert (await put(gateway, 0, 300_000)).status == 202
    assert (await put(gateway, 0, 1_000, size=1_000)).status == 422  # more is here than the whole is said to have
    assert (await put(gateway, 0, len(DATA))).status == 201


async def test_an_upload_whose_end_was_not_checked_is_checked_by_the_next_request(
    gateway: Gateway, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    BlobStore(tmp_path / "blobs").append(DIGEST, 0, DATA)  # the gateway died before it could finish
    assert (await put(gateway, 0, len(DATA))).status == 201
    assert (await gateway.get(PATH)).body == DATA


async def test_an_empty_file_is_a_blob(gateway: Gateway) -> None:
    path = f"/v1/blobs/{cose.digest(b'').hex()}"
    assert (await gateway.ask("PUT", path, data=b"", headers=OCTETS)).status == 201
    fetched = await gateway.get(path)
    assert (fetched.status, fetched.body) == (200, b"")


@pytest.mark.parametrize(
    ("asked", "status", "first", "end"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=699990-", 206, 699_990, 700_000),
        ("bytes=-10", 206, 699_990, 700_000),
        ("bytes=5-9999999", 206, 5, 700_000),
        ("bytes=0-", 200, 0, 700_000),
        ("bytes=a-b", 200, 0, 700_000),
        ("lines=1-2", 200, 0, 700_000),
    ],
)
async def test_one_range_is_served(gateway: Gateway, asked: str, status: int, first: int, end: int) -> None:
    await gateway.ask("PUT", PATH, data=DATA, headers=OCTETS)
    answer = await gateway.get(PATH, headers={"Range": asked})
    assert (answer.status, answer.body == DATA[first:end]) == (status, True)
    if status == 206:
        assert answer.headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(DATA)}"


async def test_a_range_beyond_the_end_is_refused_and_an_old_tag_gets_all(gateway: Gateway) -> None:
    await gateway.ask("PUT", PATH, data=DATA, headers=OCTETS)
    beyond = await gateway.get(PATH, headers={"Range": "bytes=700000-"})
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")
    other = await gateway.get(PATH, headers={"Range": "bytes=0-9", "If-Range": '"another"'})
    assert other.status == 200
    same = await gateway.get(PATH, headers={"Range": "bytes=0-9", "If-Range": other.headers["ETag"]})
    assert same.status == 206
    assert (await gateway.get(PATH, headers={"If-None-Match": other.headers["ETag"]})).status == 304


@pytest.mark.parametrize(
    "content_range",
    ["bytes 0-9/5", "bytes 9-0/10", "bytes 0-8/10", "bytes */10", "0-9/10", "bytes 0-9/*", "bytes 0-9/" + "9" * 20],
)
async def test_a_range_that_does_not_fit_its_body_is_refused(gateway: Gateway, content_range: str) -> None:
    headers = OCTETS | {"Content-Range": content_range}
    assert (await gateway.ask("PUT", PATH, data=b"0123456789", headers=headers)).status == 400
    assert (await gateway.ask("HEAD", PATH)).status == 404


async def test_an_upload_says_its_length_and_stays_below_the_limit(open_gateway: Opener) -> None:
    async def unknown_length():
        yield b"x"

    async with open_gateway(ApiLimits(blob_bytes_max=1_000)) as gateway:
        assert (await gateway.ask("PUT", PATH, data=unknown_length(), headers=OCTETS)).status == 411
        assert (await gateway.ask("PUT", PATH, data=b"x" * 1_001, headers=OCTETS)).status == 413
        assert (await put(gateway, 0, 10, size=1_001)).status == 413


async def test_two_uploads_of_one_blob_do_not_mix(gateway: Gateway) -> None:
    async def slow(half: asyncio.Event):
        yield DATA[:300_000]
        await half.wait()
        yield DATA[300_000:]

    half = asyncio.Event()
    headers = OCTETS | {"Content-Length": str(len(DATA))}
    first = asyncio.ensure_future(gateway.ask("PUT", PATH, data=slow(half), headers=headers))
    async with asyncio.timeout(60):
        while (await gateway.ask("HEAD", PATH)).status == 404:
            await asyncio.sleep(0.01)
    second = await put(gateway, 0, len(DATA))
    half.set()
    assert (second.status, (await first).status) == (409, 201)
    assert (await gateway.get(PATH)).body == DATA


async def test_a_full_disk_is_said_and_the_beginning_kept(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    append = BlobStore.append

    def full(store: BlobStore, digest: bytes, offset: int, data: bytes) -> int:
        if offset > 0:
            raise OSError(errno.ENOSPC, "No space left on device", "/srv/secret")
        return append(store, digest, offset, data)

    monkeypatch.setattr(BlobStore, "append", full)
    answer = await gateway.ask("PUT", PATH, data=DATA, headers=OCTETS)
    assert (answer.status, b"secret" in answer.body) == (507, False)
    monkeypatch.setattr(BlobStore, "append", append)
    offset = int((await gateway.ask("HEAD", PATH)).headers["Upload-Offset"])
    assert offset > 0
    assert (await put(gateway, offset, len(DATA))).status == 201


async def test_a_blob_that_the_database_forgot_is_noted_again(world: World, tmp_path) -> None:
    gateway = world.gateway
    BlobStore(tmp_path / "blobs").write(DIGEST, [DATA])  # the gateway died between the folder and the database
    assert await gateway.fleet.missing_blobs([DIGEST]) == [DIGEST]
    assert (await gateway.ask("PUT", PATH, data=DATA, headers=OCTETS)).status == 200
    assert await gateway.fleet.missing_blobs([DIGEST]) == []


async def test_a_download_that_fails_midway_breaks_off_and_is_not_mistaken_for_the_blob(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.ask("PUT", PATH, data=DATA, headers=OCTETS)
    read = BlobStore.read

    def rotten(store: BlobStore, digest: bytes, first: int, count: int) -> bytes:
        if first > 0:
            raise OSError(errno.EIO, "Input/output error")
        return read(store, digest, first, count)

    monkeypatch.setattr(BlobStore, "read", rotten)
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
        await gateway.get(PATH)
    assert (await gateway.get("/healthz")).status == 200
