from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.content import (
    LISTING_MAX,
    ByteRange,
    FolderWithoutSlashError,
    NoSuchContentError,
    OpenedFile,
    OpenedFolder,
    RangeError,
    content_type,
    open_content,
    parse_range,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("not for the classroom")
    bundle = tmp_path / "bundle"
    (bundle / "lessons" / "one").mkdir(parents=True)
    (bundle / "index.html").write_text("start")
    (bundle / "lessons" / "a b.txt").write_text("lesson")
    (bundle / "lessons" / "one" / "index.html").write_text("one")
    return bundle


def read(root: Path, path: str) -> str:
    opened = open_content(root, path)
    assert isinstance(opened, OpenedFile)
    try:
        return os.pread(opened.descriptor, opened.size + 1, 0).decode()
    finally:
        os.close(opened.descriptor)


def test_files_and_index_pages_are_opened(root):
    assert read(root, "") == "start"
    assert read(root, "index.html") == "start"
    assert read(root, "lessons/a b.txt") == "lesson"
    assert read(root, "lessons/one/") == "one"


def test_a_folder_without_an_index_is_listed_without_links_and_hidden_files(root):
    (root / "lessons" / ".partial").write_text("")
    (root / "lessons" / "out").symlink_to(root.parent)
    os.mkfifo(root / "lessons" / "pipe")
    assert open_content(root, "lessons/") == OpenedFolder(("a b.txt", "one/"), complete=True)


def test_a_listing_is_bounded(root):
    for number in range(LISTING_MAX + 3):
        (root / "lessons" / f"{number}").touch()
    folder = open_content(root, "lessons/")
    assert isinstance(folder, OpenedFolder)
    assert (len(folder.entries), folder.complete) == (LISTING_MAX, False)


def test_a_folder_without_its_slash_is_told_apart(root):
    with pytest.raises(FolderWithoutSlashError):
        open_content(root, "lessons")


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "lessons/../../secret.txt",
        "..",
        "./index.html",
        "//etc/passwd",
        "/etc/passwd",
        "lessons//a b.txt",
        "lessons/a b.txt/",
        "index.html/x",
        "nothing",
        "index.html\0.txt",
        "\udcff",
        "x" * 5000,
        "/".join(["a"] * 200),
        "..\\secret.txt",
    ],
)
def test_nothing_outside_or_absent_is_opened(root, path: str):
    with pytest.raises(NoSuchContentError):
        open_content(root, path)


def test_no_link_is_followed_whatever_it_is(root):
    (root / "file.txt").symlink_to(root.parent / "secret.txt")
    (root / "folder").symlink_to(root.parent)
    (root / "inside").symlink_to(root / "lessons")
    (root / "lessons" / "one" / "index.html").unlink()
    (root / "lessons" / "one" / "index.html").symlink_to(root.parent / "secret.txt")
    for path in ("file.txt", "folder/secret.txt", "folder/", "inside/a b.txt", "lessons/one/"):
        with pytest.raises(NoSuchContentError):
            open_content(root, path)


def test_a_pipe_and_a_device_do_not_hang_and_are_not_served(root):
    os.mkfifo(root / "pipe")
    with pytest.raises(NoSuchContentError):
        open_content(root, "pipe")


def test_no_descriptor_is_left_open(root):
    before = len(os.listdir("/proc/self/fd"))
    for path in ("", "lessons/", "lessons", "nothing", "lessons/one/nothing", "../x"):
        try:
            opened = open_content(root, path)
        except NoSuchContentError:
            continue
        if isinstance(opened, OpenedFile):
            os.close(opened.descriptor)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_put_in_anothers_place_has_another_tag(root):
    first = open_content(root, "index.html")
    (root / "new").write_text("START")
    os.utime(root / "new", ns=(0, (root / "index.html").stat().st_mtime_ns))
    os.replace(root / "new", root / "index.html")
    second = open_content(root, "index.html")
    assert isinstance(first, OpenedFile)
    assert isinstance(second, OpenedFile)
    for opened in (first, second):
        os.close(opened.descriptor)
    assert first.size == second.size
    assert first.etag != second.etag


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.html", "text/html"),
        ("A.HTM", "text/html"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.svg", "image/svg+xml"),
        ("a.webp", "image/webp"),
        ("a.mp4", "video/mp4"),
        ("a.wasm", "application/wasm"),
        ("a.epub", "application/epub+zip"),
        ("a.pdf", "application/pdf"),
        ("a.tar.gz", "application/gzip"),
        ("a.html.br", "application/octet-stream"),
        ("a", "application/octet-stream"),
        ("html", "application/octet-stream"),
    ],
)
def test_types_follow_the_extension_and_not_the_system(name: str, expected: str):
    assert content_type(name) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=2-5", ByteRange(2, 6)),
        ("BYTES=8-", ByteRange(8, 10)),
        ("bytes=8-99", ByteRange(8, 10)),
        ("bytes=-3", ByteRange(7, 10)),
        ("bytes=-99", ByteRange(0, 10)),
        ("bytes=-", None),
        ("bytes=5-2", None),
        ("bytes=0-1,4-5", None),
        ("bytes=a-b", None),
        ("items=0-1", None),
        ("bytes=" + "9" * 50 + "-", None),
        ("bytes=١-٢", None),
    ],
)
def test_ranges_are_read_as_the_rfc_says(header: str | None, expected: ByteRange | None):
    assert parse_range(header, 10) == expected


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=10-12", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_a_range_beyond_the_end_is_an_error_with_the_size(header: str, size: int):
    with pytest.raises(RangeError) as caught:
        parse_range(header, size)
    assert caught.value.size == size


@given(st.text(alphabet="bytes=0123456789-, ", max_size=40), st.integers(0, 50))
def test_any_range_is_within_the_file(header: str, size: int):
    try:
        part = parse_range(header, size)
    except RangeError:
        return
    assert part is None or 0 <= part.start < part.stop <= size
