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
from tests.gateway.running import TOKENS, RunningGateway

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
    assert line.split()[-1] == "no"


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
