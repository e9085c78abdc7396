"""Configuration from the command line: a difference is shown, signed here, believed there; lies are not built upon."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.configs import stream_name
from protocol import cose
from protocol.documents import Addressee, Config, LinkConfig, parse_document, sign_document
from protocol.numbers import DocumentKind, Outcome
from protocol.trust import version_name
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import Truck, add_truck
from tests.gateway.running import RunningGateway

SET = ("config", "set", "ke-arrow", "--key", "asha", "--yes")


@pytest.fixture
def truck(trusted: RunningGateway) -> Truck:
    """An enrolled truck of group kenya."""
    return trusted.run(add_truck(trusted.fleet))


def newest(gateway: RunningGateway) -> tuple[Config, bytes]:
    record = gateway.run(gateway.fleet.newest_config("ke-arrow", "kenya"))
    assert record is not None
    return parse_document(record.signed, Config)[0], record.digest


def test_pairs_are_signed_with_the_next_version(truck: Truck, trusted: RunningGateway, digitruck: Digitruck) -> None:
    ran = digitruck(*SET, "links.sat.month_bytes_max=3000000", "--confirm-within", "1h")
    assert "+ links.sat.month_bytes_max = 3000000" in ran.out
    config, _ = newest(trusted)
    assert (config.version, config.confirm_within_s, config.addressee.trucks) == (1, 3600, ("ke-arrow",))
    digitruck(*SET, "batch_age_s=600")
    config, _ = newest(trusted)
    assert (config.version, config.batch_age_s, config.confirm_within_s) == (2, 600, None)
    assert config.links == (LinkConfig("sat", 3_000_000),)


def test_show_prints_what_set_takes(truck: Truck, trusted: RunningGateway, digitruck: Digitruck, home: Path) -> None:
    digitruck(*SET, "links.sat.month_bytes_max=3000000", "collectors.host.period_s=60", "extra.note=x y")
    (home / "new.toml").write_text(digitruck("config", "show", "ke-arrow").out.replace("3000000", "4000000"))
    assert digitruck("config", "diff", "ke-arrow", "new.toml").out.splitlines() == [
        "- links.sat.month_bytes_max = 3000000",
        "+ links.sat.month_bytes_max = 4000000",
    ]
    digitruck(*SET, "new.toml")
    assert newest(trusted)[0].links[0].month_bytes_max == 4_000_000
    assert digitruck("config", "diff", "ke-arrow", "new.toml").out == ""
    shown = digitruck("config", "show", "ke-arrow", "--json").json
    assert shown["settings"]["extra.note"] == "x y"
    assert shown["document"]["version"] == 2


def test_the_same_again_is_not_signed(truck: Truck, trusted: RunningGateway, digitruck: Digitruck) -> None:
    digitruck(*SET, "batch_age_s=600")
    assert "nothing to sign" in digitruck(*SET, "batch_age_s=600").err
    assert newest(trusted)[0].version == 1


def test_a_group_is_set_and_is_the_base_of_a_trucks_own(
    truck: Truck, trusted: RunningGateway, digitruck: Digitruck
) -> None:
    digitruck("config", "set", "--group", "kenya", "batch_age_s=600", "extra.a=1", "--key", "asha", "--yes")
    assert newest(trusted)[0].addressee == Addressee((), "kenya")
    digitruck(*SET, "extra.b=2")
    config, _ = newest(trusted)
    assert config.addressee == Addressee(("ke-arrow",))
    assert (config.batch_age_s, config.extra, config.version) == (600, {"a": 1, "b": 2}, 1)
    group = digitruck("config", "show", "--group", "kenya", "--json").json
    assert group["settings"] == {"batch_age_s": 600, "extra.a": 1}


def test_nothing_leaves_when_nobody_confirms(truck: Truck, trusted: RunningGateway, digitruck: Digitruck) -> None:
    ran = digitruck("config", "set", "ke-arrow", "batch_age_s=600", "--key", "asha", ok=False)
    assert (ran.code, "--yes" in ran.err) == (1, True)
    assert "+ batch_age_s = 600" in ran.out
    assert trusted.run(trusted.fleet.newest_config("ke-arrow", "kenya")) is None


def test_history_lists_the_versions_newest_first(truck: Truck, digitruck: Digitruck) -> None:
    for age in (600, 700):
        digitruck(*SET, f"batch_age_s={age}")
    assert [each["version"] for each in digitruck("config", "history", "ke-arrow", "--json").json] == [2, 1]
    assert digitruck("config", "history", "ke-arrow").out.splitlines()[1].startswith("      2")
    assert digitruck("config", "history", "--group", "kenya").out == ""


def test_diff_without_changes_tells_what_the_truck_has_yet_to_apply(
    truck: Truck, trusted: RunningGateway, digitruck: Digitruck
) -> None:
    digitruck(*SET, "batch_age_s=600")
    assert digitruck("config", "diff", "ke-arrow").out == "+ batch_age_s = 600\n"
    _, digest = newest(trusted)
    trusted.run(truck.receipt(DocumentKind.CONFIG, digest, Outcome.APPLIED, "ke-arrow"))
    assert "no difference" in digitruck("config", "diff", "ke-arrow").err
    assert "the truck says: applied" in digitruck("config", "show", "ke-arrow").err
    digitruck(*SET, "batch_age_s=700")
    assert digitruck("config", "diff", "ke-arrow", "--json").json["differences"] == [
        "- batch_age_s = 600",
        "+ batch_age_s = 700",
    ]


def test_two_signers_sign_one_file_in_two_sittings(
    truck: Truck, trusted: RunningGateway, digitruck: Digitruck, home: Path
) -> None:
    digitruck("key", "new", "juma", "--role", "operator")
    keys = ("--key", "r1", "--key", "r2", "--yes")
    digitruck("trust", "delegate", "--operator", "*=asha,juma:2", *keys)
    digitruck("trust", "push")
    alone = digitruck(*SET, "batch_age_s=600", ok=False)
    assert (alone.code, "1 more signature" in alone.err) == (1, True)
    digitruck(*SET, "batch_age_s=600", "--save", "c.cose")
    assert digitruck("trust", "push", "c.cose", ok=False).code == 1
    signed = digitruck("trust", "sign", "c.cose", "--key", "juma", "--yes")
    assert "complete: 2 of 2 for operators of *" in signed.out
    digitruck("trust", "push", "c.cose")
    assert newest(trusted)[0].batch_age_s == 600


def test_a_key_of_another_role_is_not_used(truck: Truck, digitruck: Digitruck) -> None:
    ran = digitruck("config", "set", "ke-arrow", "batch_age_s=600", "--key", "r1", "--yes", ok=False)
    assert (ran.code, "is a root key" in ran.err) == (1, True)


def test_a_configuration_that_nobody_trusted_signed_is_not_built_upon(
    truck: Truck, trusted: RunningGateway, digitruck: Digitruck
) -> None:
    digitruck(*SET, "batch_age_s=600")
    config, _ = newest(trusted)
    import msgspec

    from store.fleet.records import DocumentRecord

    forged = msgspec.structs.replace(config, version=2, batch_age_s=1)
    signed = sign_document(forged, [cose.SigningKey(b"t" * 32)])
    record = DocumentRecord(
        digest=cose.digest(signed), kind=DocumentKind.CONFIG, version=2, name="ke-arrow", signed=signed, received_ms=1,
        put_by="a thief", trucks=("ke-arrow",), issued_s=forged.issued_s, expires_s=forged.expires_s,
    )  # fmt: skip
    trusted.run(trusted.fleet.put_document(record))
    ran = digitruck(*SET, "extra.x=1", ok=False)
    assert (ran.code, "is not believed" in ran.err) == (1, True)
    assert trusted.run(trusted.fleet.newest_document(DocumentKind.CONFIG, "ke-arrow")).version == 2  # type: ignore[union-attr]


def test_without_trust_documents_all_of_it_is_shown_before_signing(
    truck: Truck, digitruck: Digitruck, home: Path
) -> None:
    digitruck(*SET, "batch_age_s=600", "extra.a=1")
    for path in (home / "data" / "digitruck" / "trust").iterdir():
        path.unlink()
    ran = digitruck(*SET, "extra.b=2")
    assert "trust fetch" in ran.err
    assert "batch_age_s = 600\nextra.a = 1\nextra.b = 2\n\n+ extra.b = 2\n" in ran.out


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["ke-arrow", "no-such.toml"], "neither a file here nor KEY=VALUE", 1),
        (["ke-arrow", "batch_age_s=0"], "no truck would accept", 1),
        (["ke-arrow"], "nothing to set", 2),
        (["ke-arrow", "a.toml", "x=1"], "either one TOML file or", 2),
        (["ke-arrow", "batch_age_s=9", "--group", "kenya"], "either one TOML file or", 2),
    ],
)
def test_mistakes_are_named_and_nothing_is_sent(
    truck: Truck, trusted: RunningGateway, digitruck: Digitruck, arguments: list[str], message: str, code: int
) -> None:
    ran = digitruck("config", "set", *arguments, "--key", "asha", "--yes", ok=False)
    assert (ran.code, message in ran.err) == (code, True), ran
    assert trusted.run(trusted.fleet.documents(kind=DocumentKind.CONFIG)) == []


@pytest.mark.parametrize("to", [Addressee(("ke-arrow",)), Addressee((), "kenya"), Addressee(("b", "a"))])
def test_the_stream_asked_for_is_the_one_that_versions_count_in(to: Addressee) -> None:
    config = Config(document=DocumentKind.CONFIG, version=1, issued_s=1, expires_s=2, addressee=to)
    assert stream_name(to) == version_name(config)


def test_show_of_nothing_says_what_to_do(truck: Truck, digitruck: Digitruck) -> None:
    ran = digitruck("config", "show", "ke-arrow", ok=False)
    assert (ran.code, "digitruck config set" in ran.err) == (1, True)
