"""Trucks on the command line: enrolled with a code, listed, shown, revoked."""

from __future__ import annotations

import sys

import pytest

from protocol import cose
from protocol.numbers import DocumentKind, Outcome
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import add_truck
from tests.gateway.running import RunningGateway


def test_a_code_is_printed_alone_so_that_scripts_can_take_it(trusted: RunningGateway, digitruck: Digitruck) -> None:
    made = digitruck("enrol", "ke-arrow", "--group", "kenya", "--expires-in", "2h")
    assert made.out.startswith("DT1-KE-ARROW-")
    assert made.out.count("\n") == 1
    assert "digitruck-edge join" in made.err
    (kept,) = trusted.run(trusted.fleet.enrolments())
    assert (kept.group, kept.expires_ms - kept.created_ms) == ("kenya", 7_200_000)
    again = digitruck("enrol", "ke-arrow", "--json").json
    assert (again["group"], again["replaces"]) == ("fleet", False)


def test_a_person_at_a_terminal_gets_a_qr_code(
    trusted: RunningGateway, digitruck: Digitruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True, raising=False)
    made = digitruck("enrol", "ke-arrow")
    assert "\u2580" in made.out or "\u2584" in made.out
    assert "\u2584" not in digitruck("enrol", "ke-arrow", "--no-qr").out


def test_enrolling_before_there_is_a_root_says_what_is_missing(signed_in: RunningGateway, digitruck: Digitruck) -> None:
    ran = digitruck("enrol", "ke-arrow", ok=False)
    assert (ran.code, "no root" in ran.err) == (1, True)


def test_a_known_truck_is_told_before_its_keys_are_replaced(trusted: RunningGateway, digitruck: Digitruck) -> None:
    trusted.run(add_truck(trusted.fleet))
    assert "replaces its keys" in digitruck("enrol", "ke-arrow").err


def test_trucks_are_listed_by_group_and_shown_with_what_they_hold(
    signed_in: RunningGateway, digitruck: Digitruck
) -> None:
    arrow = signed_in.run(add_truck(signed_in.fleet, "ke-arrow", "kenya"))
    signed_in.run(add_truck(signed_in.fleet, "sn-dakar", "west"))
    signed_in.run(arrow.receipt(DocumentKind.CONFIG, bytes(32), Outcome.ROLLED_BACK, "ke-arrow", reason="no contact"))
    signed_in.run(signed_in.fleet.set_status("ke-arrow", '{"queued": 7, "software": "0.1.0"}', 1))
    assert [each["truck"] for each in digitruck("trucks", "--json").json] == ["ke-arrow", "sn-dakar"]
    listed = digitruck("trucks", "--group", "west").out
    assert "sn-dakar" in listed
    assert "ke-arrow" not in listed
    shown = digitruck("truck", "ke-arrow").out
    assert all(text in shown for text in ("kenya", "rolled-back", "no contact", "queued", "7", arrow.key.public.hex()))
    detail = digitruck("truck", "ke-arrow", "--json").json
    assert detail["holdings"][0]["outcome"] == "rolled-back"


def test_an_empty_fleet_says_what_to_do(signed_in: RunningGateway, digitruck: Digitruck) -> None:
    ran = digitruck("trucks")
    assert (ran.out, "digitruck enrol" in ran.err) == ("", True)


def test_a_truck_is_revoked_only_when_confirmed(signed_in: RunningGateway, digitruck: Digitruck) -> None:
    signed_in.run(add_truck(signed_in.fleet))
    assert digitruck("revoke", "ke-arrow", ok=False).code == 1
    assert digitruck("truck", "ke-arrow", "--json").json["revoked_ms"] is None
    assert "is revoked since" in digitruck("revoke", "ke-arrow", "--yes").out
    assert "revoked" in digitruck("trucks").out
    assert (
        digitruck("truck", "ke-arrow", "--json").json["signing_key"]
        == cose.SigningKey(cose.digest(b"ke-arrow")).public.hex()
    )
