"""Rollouts from the command line: quoted first, signed here, followed by the trucks' own receipts."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.api.auth import Role
from gateway.cli.session import load_key
from gateway.client import SyncClient
from gateway.keystore import KeyRole
from gateway.publishing import make_manifest, scan
from protocol.documents import Addressee, Rollout, parse_document, sign_document
from protocol.numbers import DocumentKind, Outcome, Precedence
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import Truck, add_truck
from tests.gateway.running import TOKENS, RunningGateway, now_ms

CREATE = ("rollout", "create", "--key", "asha", "--yes")


@pytest.fixture
def truck(trusted: RunningGateway, digitruck: Digitruck, home: Path) -> Truck:
    """An enrolled truck, and two published versions of a bundle called maths."""
    for version, text in (("1.0", "a" * 50_000), ("1.1", "b" * 50_000)):
        (home / "maths").mkdir(exist_ok=True)
        (home / "maths" / "index.html").write_text(text)
        digitruck("bundle", "push", "maths", "--name", "maths", "--version", version, "--key", "library")
    return trusted.run(add_truck(trusted.fleet))


def rollouts(gateway: RunningGateway) -> list[Rollout]:
    rows = gateway.run(gateway.fleet.documents(kind=DocumentKind.ROLLOUT))
    records = [gateway.run(gateway.fleet.document(row.digest)) for row in rows]
    found = [parse_document(record.signed, Rollout)[0] for record in records if record is not None]
    return sorted(found, key=lambda each: each.version)


def manifest(digitruck: Digitruck, version: str) -> str:
    return str(digitruck("bundle", "show", f"maths@{version}", "--json").json["bundle"]["manifest"])


def test_versions_grow_over_all_addressees_of_a_bundle(
    truck: Truck, trusted: RunningGateway, digitruck: Digitruck
) -> None:
    digitruck(*CREATE, "maths@1.0", "--trucks", "ke-arrow")
    digitruck(*CREATE, "maths", "--group", "kenya", "--precedence", "normal")
    digitruck(*CREATE, "maths@1.0", "--trucks", "ke-arrow, sn-dakar", "--remove")
    first, second, third = rollouts(trusted)
    assert [each.version for each in (first, second, third)] == [1, 2, 3]
    assert first.manifest is not None
    assert first.manifest.hex() == manifest(digitruck, "1.0")
    assert second.manifest is not None
    assert second.manifest.hex() == manifest(digitruck, "1.1")
    assert (second.addressee, second.precedence) == (Addressee((), "kenya"), Precedence.NORMAL)
    assert (third.manifest, third.addressee.trucks) == (None, ("ke-arrow", "sn-dakar"))


def test_the_quote_is_shown_before_anything_is_signed(
    truck: Truck, trusted: RunningGateway, digitruck: Digitruck
) -> None:
    limits = (
        "links.sat.month_bytes_max=40000",
        "links.sat.price_per_mb_milli=5000",
        "links.lte.month_bytes_max=unlimited",
    )
    digitruck("config", "set", "ke-arrow", *limits, "--key", "asha", "--yes")
    ran = digitruck("rollout", "create", "maths", "--trucks", "ke-arrow", "--key", "asha", ok=False)
    assert ran.code == 1
    assert rollouts(trusted) == []
    (quoted,) = digitruck("quote", "maths", "--trucks", "ke-arrow", "--json").json
    assert quoted["file_bytes"] == 50_000
    costs = {each["link"]: each for each in quoted["links"]}
    assert (costs["sat"]["fits"], costs["lte"]["fits"]) == (False, True)
    assert costs["sat"]["wire_bytes"] > 50_000
    line = next(line for line in ran.out.splitlines() if " sat " in line)
    assert line.split()[0] == "ke-arrow"
    assert " no " in line
    assert "at most 50.0 kB" in line


def test_progress_is_told_by_receipts(truck: Truck, trusted: RunningGateway, digitruck: Digitruck) -> None:
    digitruck(*CREATE, "maths@1.0", "--trucks", "ke-arrow")
    (listed,) = digitruck("rollout", "list", "--json").json
    assert "waiting" in digitruck("rollout", "show", listed["id"][:8]).out
    digest = bytes.fromhex(manifest(digitruck, "1.0"))
    trusted.run(truck.receipt(DocumentKind.MANIFEST, digest, Outcome.APPLIED, "maths"))
    shown = digitruck("rollout", "show", listed["id"], "--json").json
    assert [(each["truck"], each["state"]) for each in shown["trucks"]] == [("ke-arrow", "done")]
    digitruck(*CREATE, "maths@1.1", "--trucks", "ke-arrow")
    assert "superseded" in digitruck("rollout", "show", listed["id"][:8]).out
    assert len(digitruck("rollout", "list").out.splitlines()) == 3


def test_a_bundle_that_is_not_complete_is_not_rolled_out_until_it_is(
    truck: Truck, trusted: RunningGateway, digitruck: Digitruck, home: Path
) -> None:
    (home / "maths" / "index.html").write_text("c" * 5_000)
    made = make_manifest(scan(home / "maths"), name="maths", label="2.0", version=3, issued_s=1, expires_s=1 << 33)
    signed = sign_document(made, [load_key("library", KeyRole.PUBLISHER)])
    with SyncClient(trusted.url, TOKENS[Role.ADMIN]) as client:
        client.put_document(signed)
    ran = digitruck(*CREATE, "maths@2.0", "--trucks", "ke-arrow", ok=False)
    assert (ran.code, "1 files of maths 2.0 are not at the gateway yet" in ran.err) == (1, True)
    pushed = digitruck("bundle", "push", "maths", "--name", "maths", "--version", "2.0", "--key", "library")
    assert "Sent 1 of 1 contents" in pushed.out
    digitruck(*CREATE, "maths@2.0", "--trucks", "ke-arrow")


def test_a_bad_edition_halts_at_the_first_stage_and_is_taken_back(
    truck: Truck, trusted: RunningGateway, digitruck: Digitruck
) -> None:
    trucks = [truck, *(trusted.run(add_truck(trusted.fleet, f"ke-{number}")) for number in range(9))]
    digitruck(*CREATE, "maths@1.0", "--group", "kenya")
    good, bad = (bytes.fromhex(manifest(digitruck, version)) for version in ("1.0", "1.1"))
    for each in trucks:
        each.since_ms = now_ms()
        trusted.run(each.receipt(DocumentKind.MANIFEST, good, Outcome.APPLIED, "maths"))
    digitruck(*CREATE, "maths@1.1", "--group", "kenya", "--stages", "20%,50%,100%")
    (listed, _) = digitruck("rollout", "list", "--json").json
    trusted.run(trusted.advance(listed["id"]))
    shown = digitruck("rollout", "show", listed["id"], "--json").json
    assert (shown["state"], shown["stage"], shown["counts"]) == ("running", 1, {"waiting": 2, "staged": 8})
    first = [each for each in trucks if each.name in {t["truck"] for t in shown["trucks"] if t["state"] == "waiting"}]
    for each in first:
        each.since_ms = now_ms()
        trusted.run(each.receipt(DocumentKind.MANIFEST, bad, Outcome.ROLLED_BACK, "maths", "the health hook failed"))
    trusted.run(trusted.advance(listed["id"]))
    told = digitruck("rollout", "show", listed["id"][:8])
    assert "halted: 2 of 2 trucks failed (100 %; it stops at 20 %)" in told.out
    assert "the health hook failed" in told.out
    assert "rollout rollback" in told.err
    back = digitruck("rollout", "rollback", listed["id"][:8], "--key", "asha", "--yes")
    assert "goes back from 1.1 to 1.0" in back.err
    (newest, taken_back, _) = digitruck("rollout", "list", "--json").json
    assert (newest["version"], newest["stage"], taken_back["state"]) == ("1.0", 1, "aborted")
    halts = [each for each in trusted.run(trusted.fleet.audit_log()) if each.action == "rollout.halted"]
    assert [each.actor for each in halts] == ["gateway"]


def test_one_is_paused_resumed_and_aborted(truck: Truck, trusted: RunningGateway, digitruck: Digitruck) -> None:
    digitruck(*CREATE, "maths@1.0", "--trucks", "ke-arrow")
    (listed,) = digitruck("rollout", "list", "--json").json
    assert "is paused" in digitruck("rollout", "pause", listed["id"][:8]).out
    assert digitruck("rollout", "show", listed["id"], "--json").json["trucks"][0]["state"] == "paused"
    assert "is running" in digitruck("rollout", "resume", listed["id"][:8]).out
    assert "nobody is here to confirm" in digitruck("rollout", "abort", listed["id"][:8], ok=False).err
    digitruck("rollout", "abort", listed["id"][:8], "--yes")
    refused = digitruck("rollout", "resume", listed["id"][:8], ok=False)
    assert (refused.code, "is aborted" in refused.err) == (1, True)


def test_what_was_signed_says_how_it_goes(truck: Truck, trusted: RunningGateway, digitruck: Digitruck) -> None:
    terms = ("--stages", "10%,50%", "--stop-at", "30%", "--deadline", "5d", "--accept-cost", "12.5eur")
    ran = digitruck(*CREATE, "maths@1.0", "--trucks", "ke-arrow", *terms)
    (signed,) = rollouts(trusted)
    assert (signed.stages, signed.stop_at_percent) == ((10, 50), 30)
    assert (signed.cost_milli_max, signed.currency) == (12_500, "EUR")
    assert signed.deadline_s is not None
    assert signed.deadline_s - signed.issued_s in range(5 * 86_400 - 60, 5 * 86_400 + 60)
    assert "Stages: 10 %, 50 %, 100 % of the trucks." in ran.err
    assert "halts when more than 12.50 EUR were spent" in ran.err
    for wrong in (
        ("--stages", "50%,10%"),
        ("--stop-at", "0%"),
        ("--accept-cost", "lots"),
        ("--deadline", "1990-01-01"),
    ):
        assert digitruck(*CREATE, "maths@1.0", "--trucks", "ke-arrow", *wrong, ok=False).code == 2


def test_what_costs_more_than_was_accepted_is_not_signed(
    truck: Truck, trusted: RunningGateway, digitruck: Digitruck
) -> None:
    priced = "links.sat.price_per_mb_milli=5000000"
    digitruck("config", "set", "ke-arrow", priced, "links.sat.month_bytes_max=unlimited", "--key", "asha", "--yes")
    ran = digitruck(*CREATE, "maths", "--trucks", "ke-arrow", "--accept-cost", "10USD", ok=False)
    assert (ran.code, "more than the accepted" in ran.err) == (1, True)
    assert rollouts(trusted) == []
    digitruck(*CREATE, "maths", "--trucks", "ke-arrow", "--accept-cost", "1000USD")


def test_a_person_who_is_no_operator_cannot_start_one(
    truck: Truck, trusted: RunningGateway, digitruck: Digitruck
) -> None:
    digitruck("key", "new", "juma", "--role", "operator")
    ran = digitruck("rollout", "create", "maths", "--trucks", "ke-arrow", "--key", "juma", "--yes", ok=False)
    assert ran.code == 1
    assert "no signature by a key that is trusted" in ran.err
    assert rollouts(trusted) == []


def test_a_saved_rollout_is_pushed_with_more_signatures(
    truck: Truck, trusted: RunningGateway, digitruck: Digitruck
) -> None:
    digitruck(*CREATE, "maths@1.0", "--trucks", "ke-arrow", "--save", "r.cose")
    assert rollouts(trusted) == []
    shown = digitruck("trust", "show", "r.cose").out
    assert "truck ke-arrow should have of bundle maths" in shown
    digitruck("trust", "push", "r.cose")
    assert len(rollouts(trusted)) == 1


def test_beginnings_that_name_none_or_several_are_refused(
    truck: Truck, trusted: RunningGateway, digitruck: Digitruck
) -> None:
    assert "0 rollouts begin with" in digitruck("rollout", "show", "zz", ok=False).err
    digitruck(*CREATE, "maths@1.0", "--trucks", "ke-arrow")
    digitruck(*CREATE, "maths@1.1", "--trucks", "ke-arrow")
    assert "2 rollouts begin with" in digitruck("rollout", "show", "", ok=False).err
