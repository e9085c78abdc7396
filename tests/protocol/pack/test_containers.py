"""Containers are opened into views and closed again, byte for byte; what cannot be closed is not opened."""

import io
import struct
import zipfile
import zlib

import pytest

from gateway.packrecipes import RecipeWriter
from protocol.errors import MalformedError
from protocol.pack.containers import Kind, open_view, rebuild
from protocol.pack.cursor import BytesSource, Cursor


def closed(opened, size: int) -> bytes:
    recipe, view = Cursor(opened.recipe), Cursor(opened.view)
    made = b"".join(rebuild(opened.kind, recipe, view, size))
    assert recipe.left == view.left == 0
    return made


def check(data: bytes, kind: Kind) -> bytes:
    """Open, close and compare; return the view."""
    opened = RecipeWriter().open(BytesSource(data))
    assert opened is not None
    assert opened.kind is kind
    assert closed(opened, len(data)) == data
    held = open_view(BytesSource(data))
    assert held is not None
    assert b"".join(held) == opened.view
    return opened.view


@pytest.mark.parametrize("level", [1, 5, 6, 9])
def test_a_zip_is_opened_and_made_again_at_every_level(make, level: int) -> None:
    members = {f"chapter{n}.html": make.text(n) for n in range(5)}
    view = check(make.zip(members, level=level), Kind.ZIP)
    assert all(content in view for content in members.values())


def test_a_streamed_zip_with_sums_behind_its_members_is_made_again(make) -> None:
    check(make.zip({"a": make.text(1), "b": make.text(2)}, streamed=True), Kind.ZIP)


def test_stored_members_and_folders_and_empty_files_are_made_again(make) -> None:
    check(make.zip({"dir/": b"", "dir/empty": b"", "plain": make.text(3)}, stored=("plain", "dir/")), Kind.ZIP)


def test_a_zip_with_comment_extras_and_bytes_before_members_is_made_again(make) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        info = zipfile.ZipInfo("a", (2026, 1, 1, 0, 0, 0))
        info.compress_type = zipfile.ZIP_DEFLATED
        info.extra = struct.pack("<HHI", 0xCAFE, 4, 7)
        info.comment = b"of a member"
        file.writestr(info, make.text(1))
        out.write(b"padding between members")
        file.writestr("b", make.text(2))
        file.comment = b"of the archive"
    check(out.getvalue(), Kind.ZIP)


def test_a_member_that_another_compressor_made_travels_as_it_lies(make) -> None:
    content = make.text(5)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    # A flush in the middle is what no setting gives.
    odd = (
        packer.compress(content[:500])
        + packer.flush(zlib.Z_FULL_FLUSH)
        + packer.compress(content[500:])
        + packer.flush()
    )
    plain = make.zip({"odd": content, "even": make.text(6)})
    theirs = zlib.compressobj(6, zlib.DEFLATED, -15)
    usual = theirs.compress(content) + theirs.flush()
    at = plain.index(usual)
    data = bytearray(plain[:at] + odd + plain[at + len(usual) :])
    grown = len(odd) - len(usual)
    data[18:22] = struct.pack("<I", len(odd))
    end = data.rindex(b"PK\x05\x06")
    (start,) = struct.unpack_from("<I", data, end + 16)
    struct.pack_into("<I", data, end + 16, start + grown)
    struct.pack_into("<I", data, start + grown + 20, len(odd))
    second = data.index(b"PK\x01\x02", start + grown + 4)
    struct.pack_into("<I", data, second + 42, struct.unpack_from("<I", data, second + 42)[0] + grown)
    assert zipfile.ZipFile(io.BytesIO(bytes(data))).read("odd") == content
    opened = RecipeWriter().open(BytesSource(bytes(data)))
    assert opened is not None
    assert closed(opened, len(data)) == data
    assert odd in opened.view
    assert make.text(6) in opened.view


def test_containers_within_containers_are_opened(make) -> None:
    inner = make.gzip(make.text(7))
    view = check(
        make.zip({"site.js.gz": inner, "logo.png": make.png(1), "book.epub": make.zip({"a": make.text(8)})}), Kind.ZIP
    )
    assert make.text(7) in view
    assert make.text(8) in view


@pytest.mark.parametrize("name", [b"", b"chapter.html"])
def test_a_gzip_file_is_made_again(make, name: bytes) -> None:
    assert make.text(1) in check(make.gzip(make.text(1), name=name), Kind.GZIP)


@pytest.mark.parametrize("chunk", [100, 8192])
def test_an_image_is_made_again_whatever_its_chunks(make, chunk: int) -> None:
    check(make.png(1, chunk=chunk), Kind.PNG)


def test_an_archive_of_clusters_is_made_again(make) -> None:
    view = check(make.zim([[make.text(1), make.text(2)], [make.text(3), make.png(2)]]), Kind.ZIM)
    assert make.text(3) in view


def test_a_page_that_grows_in_an_archive_changes_little_of_its_view(make) -> None:
    pages = [make.text(n) for n in range(6)]
    old = check(make.zim([pages[:3], pages[3:]]), Kind.ZIM)
    pages[0] += b"one more line"
    new = check(make.zim([pages[:3], pages[3:]]), Kind.ZIM)
    assert len(new) - len(old) <= 20
    assert sum(page in new and page in old for page in pages[1:]) == 5


def test_several_gzip_members_stay_shut(make) -> None:
    two = make.gzip(make.text(1)) + make.gzip(make.text(2))
    assert (
        RecipeWriter().open(BytesSource(two)) is None or closed(RecipeWriter().open(BytesSource(two)), len(two)) == two
    )


def test_a_bomb_stays_shut(make) -> None:
    assert open_view(BytesSource(make.gzip(bytes(8 << 20)))) is None


def test_nothing_is_opened_with_a_library_that_the_truck_does_not_share(make) -> None:
    data = make.zip({"a": make.text(1)})
    opened = RecipeWriter(deflate=False).open(BytesSource(data))
    assert opened is not None
    assert make.text(1) not in opened.view
    assert closed(opened, len(data)) == data


@pytest.mark.parametrize("kind", [Kind.ZIP, Kind.GZIP, Kind.PNG, Kind.ZIM])
def test_a_broken_container_is_left_as_it_is_and_nothing_else_happens(make, kind: Kind, fuzz) -> None:
    data = {
        Kind.ZIP: make.zip({"a": make.text(1), "b": make.gzip(make.text(2))}),
        Kind.GZIP: make.gzip(make.text(1), name=b"n"),
        Kind.PNG: make.png(1, chunk=300),
        Kind.ZIM: make.zim([[make.text(1, 600)], [make.text(2, 500)]]),
    }[kind]
    for broken in fuzz(data, 60):
        opened = RecipeWriter(zstd=False).open(BytesSource(broken))
        if opened is not None:
            assert closed(opened, len(broken)) == broken
        held = open_view(BytesSource(broken))
        assert held is None or sum(map(len, held)) <= 64 * len(broken) + (2 << 20)


def test_a_hostile_recipe_or_view_is_refused(make, fuzz) -> None:
    data = make.zip({"a": make.text(1, 900), "b.gz": make.gzip(make.text(2, 700)), "c.png": make.png(3)})
    opened = RecipeWriter().open(BytesSource(data))
    refused = 0
    for view in fuzz(opened.view, 150):
        refused += not _harmless(opened.kind, opened.recipe, view, len(data))
    for recipe in fuzz(opened.recipe, 150):
        refused += not _harmless(opened.kind, recipe, opened.view, len(data))
    assert refused > 50


def _harmless(kind: Kind, recipe: bytes, view: bytes, size: int) -> bool:
    made = 0
    try:
        for piece in rebuild(kind, Cursor(recipe), Cursor(view), size):
            made += len(piece)
            assert made <= 64 << 20
    except MalformedError:
        return False
    return True
