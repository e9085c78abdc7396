"""The audit log is verified on the operator's own machine, whatever the gateway says of it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.answers import AuditCheck
from gateway.cli import audit
from gateway.client import SyncClient
from store.fleet.auditchain import BEFORE_FIRST, chained
from store.fleet.records import AuditNote
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.running import RunningGateway


def tamper(gateway: RunningGateway, *statements: str) -> None:
    async def change() -> None:
        async with gateway.fleet._database.write() as transaction:
            for statement in statements:
                await transaction.execute(text(statement))

    gateway.run(change())


@pytest.fixture(autouse=True)
def _a_gateway_that_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway says that its chain holds; only what is computed here can show otherwise."""
    monkeypatch.setattr(SyncClient, "audit_check", lambda _: AuditCheck(0, "", None))
    monkeypatch.setattr("gateway.cli.audit.PAGE_ITEMS", 3)


@pytest.fixture
def logged(signed_in: RunningGateway) -> RunningGateway:
    """Twelve entries: four tokens of the fixtures, and eight changes."""
    for number in range(8):
        signed_in.run(signed_in.fleet.audit(AuditNote("ada", "config.put", f"truck-{number}", number, '{"v":1}')))
    return signed_in


def test_changes_are_listed_newest_first(logged: RunningGateway, digitruck: Digitruck) -> None:
    out = digitruck("audit", "log").out
    assert out.index("truck-7") < out.index("truck-0")
    assert [each["id"] for each in digitruck("audit", "log", "--limit", "5", "--json").json] == [12, 11, 10, 9, 8]


def test_a_whole_chain_holds_and_its_head_is_noted(logged: RunningGateway, digitruck: Digitruck, home: Path) -> None:
    first = digitruck("audit", "verify", "--json").json
    assert (first["entries"], first["checked"], first["since"]) == (12, 12, 1)
    path = home / "config" / "digitruck" / "audit.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first["head"] in path.read_text()
    logged.run(logged.fleet.audit(AuditNote("ada", "config.put", "one more", 9)))
    second = digitruck("audit", "verify", "--json").json
    assert (second["entries"], second["checked"], second["since"]) == (13, 2, 12)
    assert digitruck("audit", "verify", "--all", "--json").json["checked"] == 13
    assert "holds" in digitruck("audit", "verify").out


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE audit_log SET actor = 'eve' WHERE id = 7", "entry 7 was changed"),
        ("UPDATE audit_log SET detail_json = '{\"v\" : 1}' WHERE id = 7", "entry 7 was changed"),
        ("DELETE FROM audit_log WHERE id = 7", "between 6 and 8 are missing"),
        ("DELETE FROM audit_log WHERE id < 4", "entries before 4 are missing"),
    ],
)
def test_tampering_shows(logged: RunningGateway, digitruck: Digitruck, statement: str, message: str) -> None:
    tamper(logged, statement)
    ran = digitruck("audit", "verify", ok=False)
    assert (ran.code, message in ran.err) == (1, True), ran


def test_an_entry_in_the_place_of_another_shows(logged: RunningGateway, digitruck: Digitruck) -> None:
    other = chained(7, AuditNote("eve", "config.put", "truck-2", 2, '{"v":1}'), b"p" * 32)
    tamper(
        logged,
        f"UPDATE audit_log SET actor='eve', subject='truck-2', at_ms=2, previous=x'{other.previous.hex()}', "
        f"hash=x'{other.hash.hex()}' WHERE id=7",
    )
    assert "entry 8 does not follow entry 7" in digitruck("audit", "verify", ok=False).err


def test_an_end_that_was_cut_off_shows_until_it_is_forgotten(logged: RunningGateway, digitruck: Digitruck) -> None:
    digitruck("audit", "verify")
    tamper(logged, "DELETE FROM audit_log WHERE id > 10")
    ran = digitruck("audit", "verify", ok=False)
    assert "ends at entry 10, but 12 were there" in ran.err
    assert "cut off" in digitruck("audit", "verify", "--all", ok=False).err
    digitruck("audit", "verify", "--forget")
    digitruck("audit", "verify")
    tamper(logged, "DELETE FROM audit_log")
    assert "ends at entry 0" in digitruck("audit", "verify", ok=False).err


def test_a_log_that_was_written_anew_shows(logged: RunningGateway, digitruck: Digitruck) -> None:
    digitruck("audit", "verify")
    tamper(logged, "DELETE FROM audit_log")
    previous = BEFORE_FIRST
    for number in range(1, 15):
        record = chained(number, AuditNote("eve", "config.put", "x", number), previous)
        logged.run(logged.fleet.audit(AuditNote("eve", "config.put", "x", number)))
        previous = record.hash
    assert "written anew" in digitruck("audit", "verify", ok=False).err


def test_what_the_gateway_itself_finds_is_told(
    logged: RunningGateway, digitruck: Digitruck, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setattr(SyncClient, "audit_check", lambda _: AuditCheck(0, "", 3))
    assert "entry 3 does not hold" in digitruck("audit", "verify", ok=False).err
    assert not (home / "config" / "digitruck" / "audit.json").exists()


def test_a_detail_that_is_shown_otherwise_than_hashed_is_refused() -> None:
    entry = audit.AuditEntry(1, 2, "ada", "a", "s", {"v": 2}, '{"v":1}', BEFORE_FIRST.hex(), "")
    record = chained(1, AuditNote("ada", "a", "s", 2, '{"v":1}'), BEFORE_FIRST)
    with pytest.raises(audit.CommandError, match="shown otherwise"):
        audit._check(record, entry, None)


def test_a_damaged_note_says_how_to_go_on(logged: RunningGateway, digitruck: Digitruck, home: Path) -> None:
    (home / "config" / "digitruck" / "audit.json").write_text("{")
    assert "remove it to begin anew" in digitruck("audit", "verify", ok=False).err
