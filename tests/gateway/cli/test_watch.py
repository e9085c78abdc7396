"""Live changes on the command line."""

from __future__ import annotations

import json

import pytest

from gateway.answers import Change
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import add_truck
from tests.gateway.running import RunningGateway


def test_changes_come_as_lines_and_can_be_gone_on_with(signed_in: RunningGateway, digitruck: Digitruck) -> None:
    truck = signed_in.run(add_truck(signed_in.fleet))
    signed_in.run(truck.event("door.open"))
    lines = digitruck("watch", "--after", "0", "--kinds", "event,truck", "--count", "2", "--json").out.splitlines()
    first, second = (json.loads(line) for line in lines)
    assert (first["kind"], first["truck"]) == ("truck", "ke-arrow")
    assert second["kind"] == "event"
    assert second["id"] > first["id"] > 0
    again = digitruck("watch", "--after", str(first["id"]), "--kinds", "event", "--count", "1").out
    assert "ke-arrow" in again
    assert "event" in again


def test_ctrl_c_ends_it_as_done(
    signed_in: RunningGateway, digitruck: Digitruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_in.run(add_truck(signed_in.fleet))

    def press(change: Change, *, as_json: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gateway.cli.watch._print", press)
    ran = digitruck("watch", "--after", "0")
    assert (ran.code, ran.err) == (0, "")
