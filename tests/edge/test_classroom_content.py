from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from edge import classroom_content
from edge.classroom_content import ContentHandler
from edge.classroom_server import ClassroomServer
from edge.pages import ServedBundle

VIDEO = bytes(range(256)) * 4096  # 1 MiB: several chunks


class Shelf:
    """Bundles by name, as the installer would have them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def active(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.is_dir() else None

    def bundles(self) -> list[ServedBundle]:
        return []


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("not for the classroom")
    (tmp_path / "maths" / "film").mkdir(parents=True)
    (tmp_path / "maths" / "index.html").write_text("<p>start")
    (tmp_path / "maths" / "film" / "été.mp4").write_bytes(VIDEO)
    (tmp_path / "maths" / "empty.txt").touch()
    return tmp_path


@pytest.fixture
async def server(shelf: Path) -> AsyncIterator[ClassroomServer]:
    handler = ContentHandler(Shelf(shelf))
    app = web.Application()
    app.router.add_get("/content/{name}", handler.redirect)
    app.router.add_get("/content/{name}/{path:.*}", handler.get)
    server = ClassroomServer(app, "127.0.0.1:0")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server: ClassroomServer) -> AsyncIterator[aiohttp.ClientSession]:
    host, port = server.address
    async with aiohttp.ClientSession(f"http://{host}:{port}", timeout=aiohttp.ClientTimeout(10)) as session:
        yield session


FILM = "/content/maths/film/été.mp4"


async def test_a_file_comes_whole_with_its_type_and_tag(client):
    async with client.get(FILM) as answer:
        assert answer.status == 200
        assert await answer.read() == VIDEO
        assert answer.headers["Content-Type"] == "video/mp4"
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["ETag"].startswith('"')
        assert answer.headers["Last-Modified"].endswith("GMT")


async def test_head_has_the_length_and_no_body(client):
    async with client.head(FILM) as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(VIDEO)))
        assert await answer.read() == b""


async def test_an_empty_file_and_an_index_page_are_served(client):
    async with client.get("/content/maths/empty.txt") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    async with client.get("/content/maths/") as answer:
        assert (answer.headers["Content-Type"], await answer.text()) == ("text/html", "<p>start")


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-99", 0, 100), ("bytes=300000-", 300_000, len(VIDEO)), ("bytes=-7", len(VIDEO) - 7, len(VIDEO))],
)
async def test_a_film_can_be_wound(client, asked: str, start: int, stop: int):
    async with client.get(FILM, headers={"Range": asked}) as answer:
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(VIDEO)}"
        assert await answer.read() == VIDEO[start:stop]


async def test_a_range_beyond_the_end_is_refused_with_the_size(client):
    async with client.get(FILM, headers={"Range": f"bytes={len(VIDEO)}-"}) as answer:
        assert answer.status == 416
        assert answer.headers["Content-Range"] == f"bytes */{len(VIDEO)}"


async def test_a_file_that_is_the_same_is_not_sent_again(client):
    async with client.get(FILM) as answer:
        tag, modified = answer.headers["ETag"], answer.headers["Last-Modified"]
    for headers in (
        {"If-None-Match": tag},
        {"If-None-Match": f'"other", W/{tag}'},
        {"If-None-Match": "*"},
        {"If-Modified-Since": modified},
    ):
        async with client.get(FILM, headers=headers) as answer:
            assert answer.status == 304
            assert answer.headers["ETag"] == tag
            assert await answer.read() == b""
    async with client.get(FILM, headers={"If-None-Match": '"other"', "If-Modified-Since": modified}) as answer:
        assert answer.status == 200


async def test_a_download_starts_again_when_the_bundle_changed_meanwhile(client, shelf):
    async with client.get(FILM) as answer:
        tag = answer.headers["ETag"]
    async with client.get(FILM, headers={"Range": "bytes=5-9", "If-Range": tag}) as answer:
        assert answer.status == 206
    (shelf / "new").write_bytes(VIDEO[::-1])
    os.replace(shelf / "new", shelf / "maths" / "film" / "été.mp4")
    async with client.get(FILM, headers={"Range": "bytes=5-9", "If-Range": tag}) as answer:
        assert answer.status == 200
        assert await answer.read() == VIDEO[::-1]


@pytest.mark.parametrize(
    "path",
    [
        "/content/maths/../secret.txt",
        "/content/maths/%2e%2e/secret.txt",
        "/content/maths/..%2fsecret.txt",
        "/content/maths/%2e%2e%2fsecret.txt",
        "/content/maths/film/%2e%2e/%2e%2e/secret.txt",
        "/content/maths/%252e%252e/secret.txt",
        "/content/maths//etc/passwd",
        "/content/maths/%2fetc/passwd",
        "/content/maths/index.html%00.txt",
        "/content/maths/..%5csecret.txt",
        "/content/../secret.txt",
        "/content/%2e%2e/secret.txt",
        "/content/..%2f/secret.txt",
        "/content/./secret.txt",
        "/content/nothing/index.html",
        "/content/maths/nothing",
        "/content/maths/%ff%fe",
        "/content/maths/link.txt",
        "/content/maths/out/secret.txt",
    ],
)
async def test_nothing_outside_the_bundle_is_served(server, shelf, path: str):
    (shelf / "maths" / "link.txt").symlink_to(shelf / "secret.txt")
    (shelf / "maths" / "out").symlink_to(shelf)
    reader, writer = await asyncio.open_connection(*server.address)
    # By hand: a client would tidy the path up first.
    writer.write(f"GET {path} HTTP/1.1\r\nHost: truck\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    assert answer.split(b" ")[1] in (b"404", b"400")
    assert b"not for the classroom" not in answer


async def test_an_address_without_its_slash_leads_to_the_folder_and_nowhere_else(client):
    for path, location in (
        ("/content/maths", "./maths/"),
        ("/content/maths/film", "./film/"),
        ("/content/%2f%2fevil.example", "./%2F%2Fevil.example/"),
    ):
        async with client.get(URL(path, encoded=True), allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (308, location)


async def test_a_folder_without_a_page_is_listed(client):
    async with client.get("/content/maths/film/", headers={"Accept-Language": "fr"}) as answer:
        assert answer.status == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        page = await answer.text()
    assert 'href="./%C3%A9t%C3%A9.mp4"' in page
    assert "Fichiers de maths/film" in page


async def test_a_reader_that_stops_reading_is_let_go(server, monkeypatch, shelf):
    monkeypatch.setattr(classroom_content, "CHUNK_S_MAX", 0.05)
    (shelf / "maths" / "long.bin").write_bytes(bytes(64 * 1024 * 1024))
    before = len(os.listdir("/proc/self/fd"))
    reader, writer = await asyncio.open_connection(*server.address, limit=1024)
    writer.write(b"GET /content/maths/long.bin HTTP/1.1\r\nHost: truck\r\n\r\n")
    await reader.readline()
    writer.transport.pause_reading()
    await asyncio.sleep(0.5)
    writer.transport.resume_reading()
    received = 0
    try:
        async with asyncio.timeout(60):
            while chunk := await reader.read(1 << 20):
                received += len(chunk)
    except ConnectionResetError:
        pass
    writer.close()
    await asyncio.sleep(0.05)
    assert received < 64 * 1024 * 1024
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_a_file_that_becomes_shorter_is_broken_off_not_padded(client, shelf, monkeypatch):
    real = os.pread
    monkeypatch.setattr(classroom_content.os, "pread", lambda fd, size, at: real(fd, size, at) if at == 0 else b"")
    with pytest.raises(aiohttp.ClientError):
        async with client.get(FILM) as answer:
            await answer.read()
