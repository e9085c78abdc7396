"""A link falls with its interface and comes back with it, without a timeout."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from edge.interfaces import Interface
from edge.linkwatch import LinkWatch
from edge.standing import Standing
from tests.edge.trucks import Monotonic

GOOD = Interface("wwan0", 7, is_up=True, has_carrier=True, mtu_bytes=1_420, kind="cellular", addresses=("10.0.0.2",))


class Bound(Standing):
    """The part of a link that is watched."""

    def __init__(self, monotonic: Monotonic, interface: str | None = "wwan0") -> None:
        super().__init__("lte", monotonic=monotonic, gateway=lambda: "gateway")
        self.settings: Any = SimpleNamespace(interface=interface)


def watched(*links: Bound) -> tuple[LinkWatch, dict[str, Interface], list[tuple[str, bool]]]:
    interfaces = {"wwan0": GOOD}
    told: list[tuple[str, bool]] = []
    watch = LinkWatch(links, lambda link, usable: told.append((link.name, usable)), read=lambda: dict(interfaces))  # type: ignore[arg-type]
    watch.look()
    return watch, interfaces, told


def test_what_has_not_changed_is_not_told_again() -> None:
    link = Bound(Monotonic())
    watch, _, told = watched(link)
    watch.look()
    assert told == [("lte", True)]
    assert link.usable
    assert not link.resting


def test_a_carrier_that_is_lost_ends_the_link_at_once_and_one_that_is_back_has_it_tried_at_once() -> None:
    link = Bound(Monotonic())
    watch, interfaces, told = watched(link)
    interfaces["wwan0"] = replace(GOOD, has_carrier=False)
    watch.look()
    assert (link.usable, link.is_away, link.resting) == (False, True, True)
    interfaces["wwan0"] = GOOD
    watch.look()
    assert (link.is_away, link.resting) == (False, False)
    assert told == [("lte", True), ("lte", False), ("lte", True)]


def test_an_interface_that_is_gone_or_without_address_carries_nothing() -> None:
    link = Bound(Monotonic())
    watch, interfaces, _ = watched(link)
    del interfaces["wwan0"]
    watch.look()
    assert link.is_away
    interfaces["wwan0"] = replace(GOOD, addresses=())
    watch.look()
    assert link.is_away


def test_a_new_address_has_the_link_tried_anew() -> None:
    link = Bound(Monotonic())
    watch, interfaces, told = watched(link)
    link.fell()
    assert link.resting
    interfaces["wwan0"] = replace(GOOD, addresses=("10.0.0.9",))
    watch.look()
    assert not link.resting
    assert told[-1] == ("lte", True)


def test_a_link_without_an_interface_is_nobody_s_business() -> None:
    link = Bound(Monotonic(), interface=None)
    _, _, told = watched(link)
    assert told == []
    assert not link.is_away


def test_a_link_that_flaps_rests_longer_and_is_forgiven_when_it_is_heard() -> None:
    clock = Monotonic()
    link = Bound(clock)
    rests = []
    for _ in range(4):
        link.heard(0.1)
        link.fell()
        rests.append(link.rests_until - clock())
    assert rests == [1.0, 2.0, 4.0, 8.0]
    link.heard(0.1)
    assert not link.resting
    assert link.falls == 4.0
