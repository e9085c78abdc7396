"""Room for content: what goes for something new, what never does, and what an operator may sign about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.installer import DiskFullError
from edge.room import ContentPolicy, content_policy, make_room
from protocol.documents import Manifest, parse_document
from protocol.errors import LocalError
from tests.edge.test_scrubbing import installed
from tests.gateway.fleets import Signers


def newcomer(size: int, name: str = "new") -> Manifest:
    return parse_document(Signers().manifest({"new.bin": b"z" * size}, name=name), Manifest)[0]


def names(root: Path) -> list[tuple[str, str, bool]]:
    installer = installed(root, {"x": b"x"}, name="x")
    return [(each.name, each.manifest.label, each.active) for each in installer.installed() if each.name != "x"]


def filled(root: Path) -> None:
    installed(root, {"a.bin": b"1" * 1_000}, name="alpha")
    installed(root, {"a.bin": b"2" * 1_000}, version=2, name="alpha")
    installed(root, {"b.bin": b"3" * 1_000}, name="beta")
    installed(root, {"c.bin": b"4" * 1_000}, name="gamma")


ALL = [("alpha", "v1", False), ("alpha", "v2", True), ("beta", "v1", True), ("gamma", "v1", True)]


@pytest.mark.parametrize(
    ("size", "policy", "gone", "left"),
    [
        # There is room.
        (500, ContentPolicy(), (), 4),
        # The way back goes first, and nothing else of the same rank.
        (1_500, ContentPolicy(), (), 3),
        # A pinned bundle keeps its way back, so that nothing is enough.
        (1_500, ContentPolicy(pinned=frozenset({"alpha"})), None, 4),
        # Then the bundles of a lower rank, the lowest first.
        (2_500, ContentPolicy(ranks={"beta": 50, "gamma": 20}), ("gamma",), 2),
        (3_500, ContentPolicy(ranks={"beta": 50, "gamma": 20}), ("gamma", "beta"), 1),
        (3_500, ContentPolicy(pinned=frozenset({"gamma"}), ranks={"beta": 50, "gamma": 20}), None, 4),
        # Of the newcomer's own rank none goes, and nothing goes for what would not fit anyhow.
        (2_500, ContentPolicy(), None, 4),
        (9_000, ContentPolicy(ranks={"beta": 1, "gamma": 1, "alpha": 1}), None, 4),
    ],
)
def test_what_goes_for_something_new(
    tmp_path: Path, size: int, policy: ContentPolicy, gone: tuple[str, ...] | None, left: int
) -> None:
    filled(tmp_path)
    installer = installed(tmp_path, {"x": b"x"}, name="x")
    installer.bytes_max = 4_501
    before = [each.path for each in installer.installed()]
    policy = ContentPolicy(policy.bytes_max, policy.pinned | {"x"}, policy.ranks)
    if gone is None:
        with pytest.raises(DiskFullError):
            make_room(installer, newcomer(size), policy)
        assert [each.path for each in installer.installed()] == before
    else:
        assert make_room(installer, newcomer(size), policy) == gone
        installer.check_room(newcomer(size))
    assert len([each for each in installer.installed() if each.name != "x"]) == left


def test_what_is_signed_about_room_is_read_and_the_rest_left_alone() -> None:
    extra = {
        "content.bytes_max": 5_000_000,
        "content.pin.maths": True,
        "content.pin.games": False,
        "content.rank.games": 10,
        "note": "x",
        "limit.solar.bat_v": "below=24",
    }
    policy = content_policy(extra)
    assert policy == ContentPolicy(5_000_000, frozenset({"maths"}), {"games": 10})
    assert (policy.rank("games"), policy.rank("maths")) == (10, 100)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("content.bytes_max", 0),
        ("content.bytes_max", True),
        ("content.bytes_max", "much"),
        ("content.pin.maths", 1),
        ("content.pin", True),
        ("content.rank.maths", "high"),
        ("content.colour", 3),
    ],
)
def test_a_policy_that_cannot_be_refuses_its_configuration(key: str, value: int | bool | str) -> None:
    with pytest.raises(LocalError, match="content"):
        content_policy({key: value})
