"""Trusted documents: versions that never fall, one step back, treatments told once; schema numbers for ever."""

import pytest

from protocol import cose
from protocol.errors import RollbackError
from protocol.numbers import DocumentKind, Outcome
from store.documents import Documents, Schemas, Treatment

CONFIG, MANIFEST = DocumentKind.CONFIG, DocumentKind.MANIFEST


@pytest.fixture
def documents(database) -> Documents:
    return Documents(database)


def put(documents: Documents, version: int, signed: bytes, name: str = "", kind: DocumentKind = CONFIG) -> bool:
    return documents.put_trusted(kind, name, version, cose.digest(signed), signed)


def test_the_newest_is_current_and_the_one_before_it_is_kept(documents) -> None:
    for version in (1, 2, 5):
        assert put(documents, version, b"v%d" % version)
    assert documents.highest(CONFIG) == 5
    current, previous = documents.current(CONFIG), documents.previous(CONFIG)
    assert current is not None
    assert (current.version, current.signed) == (5, b"v5")
    assert previous is not None
    assert previous.signed == b"v2"
    assert documents.by_digest(cose.digest(b"v1")) is None
    assert documents.by_digest(cose.digest(b"v2")) == previous


@pytest.mark.parametrize(("version", "signed"), [(1, b"old"), (4, b"v4"), (5, b"another five")])
def test_a_lower_version_or_another_document_of_the_highest_is_a_rollback(documents, version, signed) -> None:
    put(documents, 5, b"five")
    with pytest.raises(RollbackError):
        put(documents, version, signed)
    current = documents.current(CONFIG)
    assert current is not None
    assert current.signed == b"five"


def test_the_same_document_again_changes_nothing(documents) -> None:
    assert put(documents, 5, b"five")
    assert not put(documents, 5, b"five")


def test_the_highest_version_stays_when_the_document_goes_and_over_a_restart(opened) -> None:
    first = opened()
    put(Documents(first), 3, b"three", name="maths", kind=MANIFEST)
    Documents(first).remove(MANIFEST, "maths")
    first.crash()
    documents = Documents(opened())
    assert documents.highest(MANIFEST, "maths") == 3
    assert documents.current(MANIFEST, "maths") is None
    assert documents.names(MANIFEST) == ()
    with pytest.raises(RollbackError):
        put(documents, 2, b"two", name="maths", kind=MANIFEST)
    assert put(documents, 3, b"three", name="maths", kind=MANIFEST)


def test_highest_versions_survive_damage_elsewhere_in_the_file(opened, flip) -> None:
    first = opened()
    put(Documents(first), 7, b"seven-" * 30)
    put(Documents(first), 9, b"other-" * 30, name="x", kind=MANIFEST)
    first.close()
    flip(first.path, b"seven-" * 30)
    documents = Documents(opened())
    assert documents.highest(CONFIG) == 7
    assert documents.current(CONFIG) is None
    assert documents.highest_versions(MANIFEST) == {"x": 9}
    assert documents.current(MANIFEST, "x") is not None


def test_names_are_apart_and_bytes_must_be_those_of_the_digest(documents) -> None:
    put(documents, 5, b"five", name="a", kind=MANIFEST)
    assert put(documents, 1, b"one", name="b", kind=MANIFEST)
    assert documents.names(MANIFEST) == ("a", "b")
    with pytest.raises(ValueError, match="digest"):
        documents.put_trusted(CONFIG, "", 1, cose.digest(b"x"), b"y")


def test_only_a_new_root_lets_versions_start_over(documents) -> None:
    put(documents, 1 << 50, b"far ahead")
    documents.forget_versions([CONFIG])
    assert documents.highest(CONFIG) is None
    assert put(documents, 1, b"one")


def test_a_treatment_is_told_once_until_it_changes(documents) -> None:
    applied = Treatment(CONFIG, "", 3, bytes(32), Outcome.APPLIED, "", 10)
    assert documents.treat(applied)
    assert not documents.treat(applied)
    assert documents.treat(Treatment(CONFIG, "", 3, bytes(32), Outcome.ROLLED_BACK, "no contact", 20))
    last = documents.treatment(CONFIG)
    assert last is not None
    assert (last.outcome, last.reason, last.at_s) == (Outcome.ROLLED_BACK, "no contact", 20)
    assert documents.treatment(MANIFEST) is None


def test_a_schema_keeps_its_number_for_ever(opened) -> None:
    first = opened()
    assert Schemas(first).number(b"a") == (0, True)
    assert Schemas(first).number(b"b") == (1, True)
    first.crash()
    schemas = Schemas(opened())
    assert schemas.number(b"a") == (0, False)
    assert schemas.number(b"c") == (2, True)
    found = schemas.get(1)
    assert found is not None
    assert (found.schema, found.digest) == (b"b", cose.digest(b"b"))
    assert schemas.get(9) is None
    assert [each.number for each in schemas.all()] == [0, 1, 2]


def test_a_damaged_database_gives_no_schema_number_that_it_may_have_forgotten(opened, flip) -> None:
    first = opened()
    for name in (b"a", b"b" * 100):
        Schemas(first).number(name)
    first.close()
    flip(first.path, b"b" * 100)
    schemas = Schemas(opened())
    assert schemas.number(b"a") == (0, False)
    number, is_new = schemas.number(b"c")
    assert is_new
    assert 256 <= number < 1 << 16
