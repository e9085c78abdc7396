"""Databases are opened page by page and made again byte for byte, whatever SQLite did to their pages."""

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.packcodecs import delta
from gateway.packrecipes import RecipeWriter
from protocol.errors import MalformedError
from protocol.pack.containers import Kind, open_view, rebuild
from protocol.pack.cursor import BytesSource, Cursor
from tests.protocol.pack.making import text


def database(
    folder: Path, *, rows: int = 600, page_size: int = 4096, name: str = "a.db", more: tuple[str, ...] = ()
) -> bytes:
    """Return a database whose rows came out of order, some of them changed and deleted again."""
    path = folder / name
    path.unlink(missing_ok=True)
    chosen = random.Random(7)
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")
        for pragma in (each for each in more if each.startswith("PRAGMA")):
            connection.execute(pragma)
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT, body BLOB)")
        connection.execute("CREATE TABLE codes (code TEXT PRIMARY KEY, name TEXT, grade INTEGER) WITHOUT ROWID")
        connection.execute("CREATE INDEX by_title ON notes (title, id)")
        connection.execute("BEGIN")
        for number in chosen.sample(range(rows), rows):
            long = number % 97 == 0
            body = text(number, 12_000 if long else 40 + number % 80)
            connection.execute("INSERT INTO notes VALUES (?, ?, ?)", (number, f"note {number * 7 % 100}", body))
            connection.execute("INSERT INTO codes VALUES (?, ?, ?)", (f"EPSG:{number:05}", f"name {number}", -number))
        connection.execute("COMMIT")
        for statement in (each for each in more if not each.startswith("PRAGMA")):
            connection.execute(statement)
    connection.close()
    return path.read_bytes()


def check(data: bytes) -> bytes:
    """Open, close and compare; return the view."""
    opened = RecipeWriter().open(BytesSource(data))
    assert opened is not None
    assert opened.kind is Kind.SQLITE
    recipe, view = Cursor(opened.recipe), Cursor(opened.view)
    assert b"".join(rebuild(opened.kind, recipe, view, len(data))) == data
    assert recipe.left == view.left == 0
    held = open_view(BytesSource(data))
    assert held is not None
    assert b"".join(held) == opened.view
    return opened.view


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65_536])
def test_a_database_is_made_again_whatever_its_pages(tmp_path: Path, page_size: int) -> None:
    check(database(tmp_path, page_size=page_size, rows=300))


@pytest.mark.parametrize(
    "more",
    [
        ("DELETE FROM notes WHERE id % 3 = 0", "DELETE FROM codes WHERE grade % 5 = 0"),
        ("DELETE FROM notes WHERE id % 3 = 0", "VACUUM"),
        ("PRAGMA auto_vacuum = FULL", "DELETE FROM notes WHERE id > 200"),
        ("UPDATE notes SET title = title || ' again' WHERE id % 4 = 1", "INSERT INTO notes VALUES (9999, 'x', 'y')"),
        ("PRAGMA secure_delete = ON", "DELETE FROM codes WHERE grade % 2 = 0"),
    ],
)
def test_holes_free_places_and_free_pages_are_made_again(tmp_path: Path, more: tuple[str, ...]) -> None:
    check(database(tmp_path, more=more))


def test_an_empty_database_stays_shut_or_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    check(path.read_bytes())


def test_rows_between_others_cost_far_less_once_it_is_opened(tmp_path: Path) -> None:
    old = database(tmp_path, rows=1_500)
    changes = tuple(f"INSERT INTO codes VALUES ('EPSG:{n * 31:05}x', 'another name', {n})" for n in range(45))
    new = database(tmp_path, rows=1_500, more=(*changes, "DELETE FROM codes WHERE grade = -77", "VACUUM"))
    old = database(tmp_path, rows=1_500, more=("VACUUM",))
    opened = len(delta(check(new), check(old)))
    assert opened < 0.6 * len(delta(new, old))


def test_a_truck_that_knows_no_databases_gets_none_opened(tmp_path: Path) -> None:
    source = BytesSource(database(tmp_path, rows=50))
    assert RecipeWriter(views=0).open(source) is None
    assert open_view(source, views=0) is None


def test_a_broken_database_is_made_again_or_stays_shut(tmp_path: Path, fuzz) -> None:
    for broken in fuzz(database(tmp_path, rows=60, page_size=512), 40):
        opened = RecipeWriter().open(BytesSource(broken))
        if opened is not None:
            assert b"".join(rebuild(opened.kind, Cursor(opened.recipe), Cursor(opened.view), len(broken))) == broken


def test_a_hostile_recipe_or_view_is_refused(tmp_path: Path, fuzz) -> None:
    data = database(tmp_path, rows=60, page_size=512)
    opened = RecipeWriter().open(BytesSource(data))
    assert opened is not None
    refused = sum(not _harmless(opened.recipe, view, len(data)) for view in _broken(opened.view, fuzz))
    assert refused > 10


def _broken(view: bytes, fuzz) -> Iterator[bytes]:
    # Most of a view is cells: what pages add stands at its head, and is broken more often here.
    yield from fuzz(view, 60)
    for head in fuzz(view[:2_000], 100):
        yield head + view[2_000:]


def _harmless(recipe: bytes, view: bytes, size: int) -> bool:
    made = 0
    try:
        for piece in rebuild(Kind.SQLITE, Cursor(recipe), Cursor(view), size):
            made += len(piece)
            assert made <= 64 << 20
    except MalformedError:
        return False
    return True
