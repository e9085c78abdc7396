"""Sticks and neighbours that lie: by a thief of the gateway's key, by who found a stick, by who answers as a truck."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edge.daemon import Edge
from edge.inbox import Inbox
from edge.sticksource import HttpSource
from protocol import cose
from protocol.documents import ManifestFile, Stick, StickEpoch, StickPack, StickTruck, parse_document, sign_document
from protocol.errors import MalformedError, PeerError
from protocol.numbers import Precedence
from store.stickfolder import StickError
from store.stickobjects import ObjectForm
from tests.edge.rig import Rig, queued
from tests.edge.test_sticks import Office, active, alone, carry, office, publish

__all__ = ["office"]


def resigned(rig: Rig, stick: Path, change: Callable[[Stick], Stick]) -> None:
    """Have who stole the gateway's key write the stick's signed part anew."""
    path = stick / "digitruck" / "stick.cose"
    document, _ = parse_document(path.read_bytes(), Stick)
    path.write_bytes(sign_document(change(document), [rig.hub.signers.gateway]))


async def on_a_stick(rig: Rig, office: Office, tmp_path: Path) -> tuple[Edge, Path, bytes]:
    edge, stick = await alone(rig), tmp_path / "stick"
    manifest = await publish(rig)
    await office.export(stick)
    return edge, stick, manifest


@pytest.mark.parametrize("size", [1 << 62, 1 << 40, 300_000_000_000])
async def test_a_pack_of_a_size_that_lies_takes_no_room(rig: Rig, office: Office, tmp_path: Path, size: int) -> None:
    edge, stick, manifest = await on_a_stick(rig, office, tmp_path)
    pack = StickPack(manifest, (), b"p" * 32, size, b"l" * 32)
    resigned(rig, stick, lambda document: replace(document, packs=(pack,)))
    state = await carry(edge, "import", stick)
    assert state.error
    assert not list((tmp_path / "ke-arrow" / "staging").iterdir())
    assert rig.failed(edge) is None


async def test_a_pack_whose_chunks_are_not_those_that_were_listed_is_not_staged(
    rig: Rig, office: Office, tmp_path: Path
) -> None:
    edge, stick, manifest = await on_a_stick(rig, office, tmp_path)
    good, bad = b"g" * 2_000_000, b"b" * 2_000_000
    leaves = b"".join(cose.digest(good[at : at + (1 << 20)]) for at in (0, 1 << 20))
    for name, data in ((cose.digest(leaves), leaves), (cose.digest(good), bad)):
        path = stick / "digitruck" / ObjectForm(name, 0, None).path(0)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    pack = StickPack(manifest, (), cose.digest(good), len(good), cose.digest(leaves))
    resigned(rig, stick, lambda document: replace(document, packs=(pack,)))
    state = await carry(edge, "import", stick)
    assert any("in part" in note for note in state.notes), state
    assert active(edge) is None
    staging = await edge.writer.run(lambda: edge.open_staging(cose.digest(good), len(good)))
    assert staging.held == 0
    await edge.writer.run(staging.close)


@pytest.mark.parametrize(
    ("cumulative", "ranges", "newest"),
    [
        (1 << 40, (), None),
        (1 << 40, (), (1, b"x" * 32)),
        (3, (), (1 << 40, b"x" * 32)),
        (0, ((1, 1 << 50),), None),
    ],
)
async def test_nobody_has_parcels_deleted_who_does_not_hold_them(
    rig: Rig,
    office: Office,
    tmp_path: Path,
    cumulative: int,
    ranges: tuple[tuple[int, int], ...],
    newest: tuple[int, bytes] | None,
) -> None:
    edge, stick, _ = await on_a_stick(rig, office, tmp_path)
    for number in range(3):
        await edge.recorder.event(f"event-{number}", Precedence.NORMAL)
    before = await queued(edge)
    lie = StickEpoch(edge.queue.epoch, cumulative, ranges, newest)

    def lying(document: Stick) -> Stick:
        (mine,) = document.trucks
        return replace(document, trucks=(StickTruck(mine.truck, mine.desired, (lie,)),))

    resigned(rig, stick, lying)
    assert (await carry(edge, "import", stick)).error == ""
    assert await queued(edge) >= before


async def test_a_document_that_is_larger_than_its_kind_is_not_read(rig: Rig, office: Office, tmp_path: Path) -> None:
    edge, stick, _ = await on_a_stick(rig, office, tmp_path)
    desired = parse_document((stick / "digitruck" / "stick.cose").read_bytes(), Stick)[0].trucks[0].desired
    path = stick / "digitruck" / ObjectForm(desired, 0, None).path(0)
    with path.open("r+b") as file:
        file.truncate(1 << 33)
    assert "larger than" in (await carry(edge, "import", stick)).error
    with (stick / "digitruck" / "stick.cose").open("r+b") as file:
        file.truncate(1 << 33)
    assert "larger than" in (await carry(edge, "import", stick)).error


async def test_documents_of_one_truck_on_the_stick_of_another_are_refused(
    rig: Rig, office: Office, tmp_path: Path
) -> None:
    edge = await alone(rig)
    await rig.join("tz-arrow")
    mine, other = tmp_path / "mine", tmp_path / "other"
    await publish(rig)
    await office.export(mine)
    await office.export(other, "tz-arrow")
    theirs = parse_document((other / "digitruck" / "stick.cose").read_bytes(), Stick)[0].trucks[0]
    path = Path("digitruck") / ObjectForm(theirs.desired, 0, None).path(0)
    (mine / path).parent.mkdir(exist_ok=True)
    (mine / path).write_bytes((other / path).read_bytes())
    resigned(rig, mine, lambda document: replace(document, trucks=(StickTruck("ke-arrow", theirs.desired),)))
    assert "is for tz-arrow" in (await carry(edge, "import", mine)).error
    assert active(edge) is None


async def test_an_old_stick_brings_nothing_back(rig: Rig, office: Office, tmp_path: Path) -> None:
    edge, old, new = await alone(rig), tmp_path / "old", tmp_path / "new"
    await publish(rig)
    await office.export(old)
    await publish(rig, {"index.html": b"<p>newer</p>"}, 2)
    rig.hub.now_ms += 60_000
    await office.export(new)
    assert (await carry(edge, "import", new)).error == ""
    state = await carry(edge, "import", old)
    assert any("older than this truck's" in note for note in state.notes), state
    assert active(edge) == {"index.html": b"<p>newer</p>"}


def test_a_file_that_goes_on_beyond_what_was_signed_is_cut_off(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    file = ManifestFile("lesson.html", 1_000, cose.digest(b"x" * 1_000))
    given = itertools.count()

    def endless(number: int) -> Iterator[bytes]:
        for _ in given:
            yield b"x" * 100_000

    with pytest.raises(MalformedError, match="longer than was signed"):
        inbox.take(file, endless, lambda count: None)
    assert next(given) <= 2
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1_000
    assert inbox.places() == {}


# -- whoever answers as a truck or depot -------------------------------------------------------------------------------


class Neighbour(BaseHTTPRequestHandler):
    """Answers as `behave` says."""

    behave: Callable[[Neighbour], None]

    def do_GET(self) -> None:
        type(self).behave(self)

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def neighbour() -> Iterator[Callable[[Callable[[Neighbour], None]], str]]:
    servers = []

    def start(behave: Callable[[Neighbour], None]) -> str:
        handler = type("Behaving", (Neighbour,), {"behave": staticmethod(behave)})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def body(data: bytes, status: int = 200, **headers: str) -> Callable[[Neighbour], None]:
    def behave(asked: Neighbour) -> None:
        asked.send_response(status)
        for name, value in headers.items():
            asked.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            asked.send_header("Content-Length", str(len(data)))
        asked.end_headers()
        asked.wfile.write(data)

    return behave


FORM = ObjectForm(b"d" * 32, 3_000_000, None)


def test_who_redirects_is_not_followed(neighbour: Any) -> None:
    address = neighbour(body(b"", 302, Location="http://127.0.0.1:9/"))
    with pytest.raises(StickError, match="answers 302"):
        HttpSource(address).read("stick.cose", 100)


def test_who_answers_more_than_asked_is_not_read_to_the_end(neighbour: Any) -> None:
    address = neighbour(body(b"x" * 10_000))
    with pytest.raises(MalformedError, match="larger than 100 bytes"):
        HttpSource(address).read("stick.cose", 100)


@pytest.mark.parametrize("count", [0, 10, 1_500_000])
def test_who_answers_less_than_asked_is_told_from_a_whole_object(neighbour: Any, count: int) -> None:
    address = neighbour(body(b"x" * count))
    with pytest.raises(PeerError):
        list(HttpSource(address).chunks(FORM))


def test_who_breaks_off_is_told_with_a_next_step(neighbour: Any) -> None:
    address = neighbour(body(b"x" * 10, Content_Length="3000000"))
    with pytest.raises((StickError, PeerError)):
        list(HttpSource(address).chunks(FORM))


def test_who_trickles_does_not_hold_the_desk_for_ever(neighbour: Any) -> None:
    def trickle(asked: Neighbour) -> None:
        asked.send_response(200)
        asked.send_header("Content-Length", "3000000")
        asked.end_headers()
        try:
            while True:
                asked.wfile.write(b"x")
                asked.wfile.flush()
                time.sleep(0.01)
        except OSError:
            return

    clock = itertools.count(0.0, 30.0)  # each look at the clock is half a minute later
    with pytest.raises(StickError, match="too slow"):
        list(HttpSource(neighbour(trickle), monotonic=lambda: next(clock)).chunks(FORM))


def test_a_server_without_ranges_serves_all_the_same(neighbour: Any) -> None:
    data = bytes(range(250)) * 12_000
    chunks = list(HttpSource(neighbour(body(data))).chunks(FORM, 1))
    assert b"".join(chunks) == data[1 << 20 :]


@pytest.mark.parametrize("address", ["ftp://10.0.0.5/", "http://", "https:///x", "http:10.0.0.5"])
def test_what_is_no_address_of_a_neighbour_is_said(address: str) -> None:
    with pytest.raises(StickError, match="is no address"):
        HttpSource(address)
