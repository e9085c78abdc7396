"""A folder becomes the same manifest everywhere, or is refused with the file named."""

import hashlib
import os
import socket
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.auth import Role
from gateway.client import ApiError, SyncClient
from gateway.publishing import (
    Progress,
    PublishingError,
    Pushed,
    Source,
    SourceFile,
    make_manifest,
    push,
    read_blocks,
    scan,
)
from protocol import cose
from protocol.documents import Manifest, parse_document, sign_document
from tests.gateway.fleets import EXPIRES_S, NOW_S, Signers
from tests.gateway.running import TOKENS, Cutter, RunningGateway, running_gateway

FILES = {
    "index.html": b"<p>Karibu",
    "css/a.css": b"p{}",
    "media/intro.bin": bytes(3_000_000),
    "copy.html": b"<p>Karibu",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build(tmp_path / "maths", FILES)


def build(top: Path, files: dict[str, bytes]) -> Path:
    top.mkdir()
    for path, data in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(data)
    return top


def manifest_of(source: Source, **changes: object) -> Manifest:
    wanted = {"name": "maths", "label": "1.0", "version": 1, "issued_s": 1_000, "expires_s": 2_000} | changes
    return make_manifest(source, **wanted)  # type: ignore[arg-type]


def test_every_file_is_listed_with_its_size_and_digest(folder: Path) -> None:
    source = scan(folder)
    assert [each.path for each in source.files] == sorted(FILES)
    assert {each.path: (each.size, each.digest) for each in source.files} == {
        path: (len(data), hashlib.sha256(data).digest()) for path, data in FILES.items()
    }
    assert source.size == sum(map(len, FILES.values()))


def test_equal_files_are_one_blob(folder: Path) -> None:
    blobs = scan(folder).blobs()
    assert len(blobs) == 3
    assert set(blobs) == {hashlib.sha256(data).digest() for data in FILES.values()}


def test_the_same_content_gives_the_same_signed_bytes_whatever_owner_time_and_order(tmp_path: Path) -> None:
    one = build(tmp_path / "one", FILES)
    two = build(tmp_path / "two", dict(reversed(FILES.items())))
    for path in two.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    key = cose.SigningKey(bytes(32))
    signed = {sign_document(manifest_of(scan(top)), [key]) for top in (one, two)}
    assert len(signed) == 1
    parsed, _ = parse_document(signed.pop(), Manifest)
    assert parsed == manifest_of(scan(one))


def test_progress_ends_at_the_total_and_never_falls(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    source = scan(folder, lambda done, total: told.append((done, total)))
    assert told[-1] == (source.size, source.size)
    assert told == sorted(told)
    assert len(told) > len(FILES) - 1


def test_a_link_is_refused_by_name_and_not_followed(folder: Path) -> None:
    (folder / "css" / "secret.txt").symlink_to("/etc/hostname")
    (folder / "loop").symlink_to(folder)
    with pytest.raises(PublishingError) as caught:
        scan(folder)
    assert [line.split(":")[0] for line in caught.value.refused] == ["css/secret.txt", "loop"]
    assert "css/secret.txt: a link" in str(caught.value)


def test_fifos_and_sockets_are_refused_and_never_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    server = socket.socket(socket.AF_UNIX)
    here = os.open(folder, os.O_RDONLY)
    try:
        server.bind(f"/proc/self/fd/{here}/sock")
    finally:
        os.close(here)
        server.close()
    with pytest.raises(PublishingError) as caught:
        scan(folder)
    assert [line.split(":")[0] for line in caught.value.refused] == ["pipe", "sock"]


@pytest.mark.parametrize(
    "name",
    [
        "what?.html",
        "a\\b.html",
        "c:d",
        "aux.html",
        "CON",
        "dot.",
        "space ",
        " lead",
        "tab\there",
        "new\nline",
        unicodedata.normalize("NFD", "café.html"),
        "bidi\u202ecod.html",
        "zero\u200bwidth",
    ],
)
def test_odd_names_are_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    with pytest.raises(PublishingError) as caught:
        scan(folder)
    assert len(caught.value.refused) == 1
    assert "\n" not in str(caught.value)
    assert "\u202e" not in str(caught.value)


def test_a_name_that_is_not_utf8_is_refused_and_shown(folder: Path) -> None:
    with open(os.fsencode(folder) + b"/caf\xe9.html", "wb") as file:
        file.write(b"x")
    with pytest.raises(PublishingError, match=r"caf\\xe9\.html"):
        scan(folder)


@pytest.mark.parametrize(("one", "two"), [("Intro.html", "intro.html"), ("A/x", "a/y"), ("straße", "STRASSE")])
def test_names_that_a_disk_would_merge_are_refused(tmp_path: Path, one: str, two: str) -> None:
    top = build(tmp_path / "top", {one: b"1", two: b"2"})
    with pytest.raises(PublishingError, match="only in case"):
        scan(top)


def test_an_empty_folder_a_file_and_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(PublishingError, match="no files"):
        scan(tmp_path / "empty")
    for path in (tmp_path / "file", tmp_path / "absent"):
        with pytest.raises(PublishingError, match="not a folder"):
            scan(path)


@pytest.mark.parametrize("changes", [{"name": "Maths"}, {"label": "v 1"}, {"content": "exe"}, {"version": 0}])
def test_a_name_a_truck_would_refuse_is_refused_before_signing(folder: Path, changes: dict[str, object]) -> None:
    with pytest.raises(PublishingError, match=next(iter(changes))):
        manifest_of(scan(folder), **changes)


def test_a_list_too_long_for_a_document_is_refused_before_signing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protocol.documents.DOCUMENT_BYTES_MAX", 10_000)
    files = tuple(SourceFile(f"{number:06}/{'x' * 200}", tmp_path, 1, bytes(32)) for number in range(100))
    assert manifest_of(Source(tmp_path, files[:30]))
    with pytest.raises(PublishingError, match="at most 10000"):
        manifest_of(Source(tmp_path, files))


def test_blocks_resume_at_an_offset(folder: Path) -> None:
    source = next(each for each in scan(folder).files if each.path == "media/intro.bin")
    assert sum(map(len, read_blocks(source))) == 3_000_000
    assert sum(map(len, read_blocks(source, offset=2_999_999))) == 1
    assert sum(map(len, read_blocks(source, offset=10, bytes_max=100))) == 100


def test_a_file_that_changed_after_the_listing_is_noticed(folder: Path) -> None:
    source = {each.path: each for each in scan(folder).files}
    (folder / "index.html").write_bytes(b"longer than before")
    with pytest.raises(PublishingError, match=r"index\.html has changed"):
        list(read_blocks(source["index.html"]))
    (folder / "copy.html").unlink()
    (folder / "copy.html").symlink_to("index.html")
    with pytest.raises(PublishingError, match=r"copy\.html cannot be read"):
        list(read_blocks(source["copy.html"]))


PART = st.text(st.sampled_from("aB.é- \u0301:ß"), min_size=1, max_size=4).filter(lambda part: part not in (".", ".."))


@settings(max_examples=60, deadline=None)
@given(paths=st.lists(st.lists(PART, min_size=1, max_size=3).map("/".join), min_size=1, max_size=4, unique=True))
def test_whatever_is_listed_every_truck_accepts(tmp_path_factory: pytest.TempPathFactory, paths: list[str]) -> None:
    top = tmp_path_factory.mktemp("any")
    for path in paths:
        try:
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_bytes(path.encode())
        except (NotADirectoryError, IsADirectoryError, FileExistsError):
            return
    try:
        source = scan(top)
    except PublishingError:
        return
    assert Manifest.decode(manifest_of(source).encode()) == manifest_of(source)


# Against a real gateway.


@pytest.fixture
def gateway(empty_database: Path, tmp_path: Path) -> Iterator[RunningGateway]:
    """A gateway that trusts the test's signers."""
    with running_gateway(empty_database, tmp_path / "gateway") as running, SyncClient(*admin(running)) as client:
        client.put_document(SIGNERS.root_document())
        client.put_document(SIGNERS.delegation())
        yield running


SIGNERS = Signers()


def admin(running: RunningGateway) -> tuple[str, str]:
    return running.url, TOKENS[Role.ADMIN]


def push_to(
    gateway: RunningGateway, folder: Path, progress: Progress | None = None, *, url: str | None = None
) -> Pushed:
    source = scan(folder)
    made = manifest_of(source, issued_s=NOW_S, expires_s=EXPIRES_S)
    with SyncClient(url or gateway.url, TOKENS[Role.ADMIN]) as client:
        return client.run(push(client.client, source, SIGNERS.sign(made, SIGNERS.publisher), progress=progress))


def test_contents_and_manifest_arrive_and_the_second_push_sends_nothing(gateway: RunningGateway, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    first = push_to(gateway, folder, lambda done, total: told.append((done, total)))
    assert (first.sent_files, first.sent_bytes, first.size) == (3, 3_000_012, 3_000_012)
    assert told[-1] == (first.size, first.size)
    for data in set(FILES.values()):
        assert gateway.blobs.path(hashlib.sha256(data).digest()).read_bytes() == data
    again = push_to(gateway, folder)
    assert again.digest == first.digest
    assert again.sent_bytes <= 12  # what is smaller than the question is not asked for


def test_a_broken_upload_goes_on_where_it_stopped(gateway: RunningGateway, folder: Path) -> None:
    cutter = Cutter(gateway, 700_000)
    url = gateway.run(cutter.start())
    told: list[int] = []
    pushed = push_to(gateway, folder, lambda done, total: told.append(done), url=url)
    gateway.run(cutter.stop())
    assert cutter.has_cut
    assert gateway.blobs.size(hashlib.sha256(FILES["media/intro.bin"]).digest()) == 3_000_000
    assert told[-1] == pushed.size


def test_what_another_push_left_behind_is_taken_up(gateway: RunningGateway, folder: Path) -> None:
    digest = hashlib.sha256(FILES["media/intro.bin"]).digest()
    gateway.blobs.append(digest, 0, bytes(2_500_000))
    assert push_to(gateway, folder).sent_bytes == 500_012


def test_a_file_that_changes_while_it_is_sent_is_named(gateway: RunningGateway, folder: Path) -> None:
    source = scan(folder)
    (folder / "media" / "intro.bin").write_bytes(b"\x01" * 3_000_000)
    made = manifest_of(source, issued_s=NOW_S, expires_s=EXPIRES_S)
    with SyncClient(*admin(gateway)) as client, pytest.raises(PublishingError, match=r"intro\.bin has changed"):
        client.run(push(client.client, source, SIGNERS.sign(made, SIGNERS.publisher)))
    assert gateway.run(gateway.fleet.bundles()) == []


def test_a_token_that_may_not_publish_ends_the_push(gateway: RunningGateway, folder: Path) -> None:
    source = scan(folder)
    with SyncClient(gateway.url, TOKENS[Role.VIEWER]) as client, pytest.raises(ApiError) as caught:
        client.run(push(client.client, source, b""))
    assert caught.value.status == 403
