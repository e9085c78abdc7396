"""`digitruck verify`: from the gateway, kept in a file, and from the file alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import NOW_S, Truck, add_truck
from tests.gateway.running import RunningGateway

# Of this period there are batches only, which the fixture really signs.
PERIOD = ("--since", "2026-11-18T10:00Z", "--until", "2026-11-18T11:06Z")


@pytest.fixture
def truck(signed_in: RunningGateway) -> Truck:
    async def fill() -> Truck:
        made = await add_truck(signed_in.fleet)
        await made.register()
        await made.batch([(NOW_S - 3600 + 60 * n, (2600 + n, n)) for n in range(50)])
        return made

    return signed_in.run(fill())


def test_a_period_is_verified_here(truck: Truck, digitruck: Digitruck) -> None:
    ran = digitruck("verify", "ke-arrow", *PERIOD)
    assert "Everything verifies." in ran.out
    assert truck.key.public.hex() in ran.out
    assert digitruck("verify", "ke-arrow", *PERIOD, "--json").json["verified"] == 1
    assert digitruck("verify", "ke-arrow", *PERIOD, "--at-gateway", "--json").json["verified"] == 1


def test_a_file_is_verified_without_the_gateway(
    truck: Truck, signed_in: RunningGateway, digitruck: Digitruck, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = digitruck("verify", "ke-arrow", *PERIOD, "--output", "kept.jsonl", "--json").json
    monkeypatch.setenv("DIGITRUCK_URL", "http://127.0.0.1:1")
    assert digitruck("verify", "--file", "kept.jsonl", "--json").json == whole
    assert digitruck("verify", "--file", "kept.jsonl", "--key", truck.key.public.hex()).code == 0
    ran = digitruck("verify", "--file", "kept.jsonl", "--key", "ab" * 32, ok=False)
    assert (ran.code, "no key of this truck" in ran.out) == (1, True)
    lines = (home / "kept.jsonl").read_bytes().splitlines(keepends=True)
    (home / "cut.jsonl").write_bytes(b"".join(lines[:-1]))
    ran = digitruck("verify", "--file", "cut.jsonl", ok=False)
    assert (ran.code, "cut off" in ran.err) == (1, True)


def test_what_was_changed_in_the_database_is_found(
    truck: Truck, signed_in: RunningGateway, digitruck: Digitruck
) -> None:
    async def change() -> None:
        async with signed_in.fleet._database.write() as transaction:
            await transaction.execute(
                text(
                    "UPDATE parcels SET sealed = CAST(substr(sealed, 1, 60) || x'00' || substr(sealed, 62) AS BLOB)"
                    " WHERE kind = 1"
                )
            )

    signed_in.run(change())
    for how in ((), ("--at-gateway",)):
        ran = digitruck("verify", "ke-arrow", *PERIOD, *how, ok=False)
        assert (ran.code, "Not everything verifies" in ran.out, "batch" in ran.out) == (1, True, True)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("ke-arrow", "--file", "x"),
        ("--file", "x", "--since", "2h"),
        ("ke-arrow", "--at-gateway", "--output", "x"),
        ("ke-arrow", "--key", "xyz"),
    ],
)
def test_what_does_not_go_together_is_wrong_use(digitruck: Digitruck, arguments: tuple[str, ...]) -> None:
    assert digitruck("verify", *arguments, ok=False).code == 2


def test_an_empty_period_says_so(truck: Truck, digitruck: Digitruck) -> None:
    assert "Nothing of that period" in digitruck("verify", "ke-arrow", "--until", "2020-01-01").out


def test_a_file_that_is_something_else_is_refused(digitruck: Digitruck, home: Path) -> None:
    (home / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" * 40_000)
    ran = digitruck("verify", "--file", "photo.jpg", ok=False)
    assert (ran.code, "line 1" in ran.err) == (1, True)
    assert len(ran.err) < 400
