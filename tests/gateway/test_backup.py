"""A backup holds the whole gateway and appears whole or not at all; a restore changes everything or nothing."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway import restoring, unpacking
from gateway.__main__ import main
from gateway.agekeys import Lock, Unlock
from gateway.daemon import folder_lock
from protocol.numbers import DocumentKind
from store.blobs import BlobStore
from store.fleet.errors import EnrolmentError
from store.fleet.fleet import FleetStore
from store.fleet.records import ContextRecord, DocumentRecord
from tests.gateway.fleets import NOW_MS, add_truck

LESSON = b"a lesson " * 100
DIGEST = hashlib.sha256(LESSON).digest()
SECRET = b"a master secret of an OSCORE context"


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def done(*args: str | Path) -> Result:
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result


def with_fleet(config: Path, work: Callable[[FleetStore], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        fleet = await FleetStore.open(f"sqlite:///{config.parent}/fleet.db")
        try:
            return await work(fleet)
        finally:
            await fleet.close()

    return asyncio.run(inside())


async def enrol(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.event("started")
    await fleet.put_context(ContextRecord(b"kid", b"\0", "ke-arrow", "sat", SECRET, b"s" * 8, 256, NOW_MS))
    await fleet.create_enrolment("tz-arrow", "kenya", b"h" * 32, NOW_MS * 2, "asha", now_ms=NOW_MS)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file of a backup key, and its recipient."""
    path = tmp_path_factory.mktemp("keys") / "backup.key"
    return path, done("backup-key", path).output.strip()


@pytest.fixture
def config(empty_database: Path, tmp_path: Path) -> Path:
    """A gateway with a truck, a session, an unused code and a blob."""
    folder = tmp_path / "data"
    done("init", folder)
    shutil.copy(empty_database, folder / "fleet.db")
    with_fleet(folder / "gateway.toml", enrol)
    BlobStore(folder / "blobs").write(DIGEST, [LESSON])
    return folder / "gateway.toml"


@pytest.fixture
def made(config: Path, key: tuple[Path, str], tmp_path: Path) -> Path:
    done("backup", tmp_path / "b.age", "--recipient", key[1], "--config", config)
    return tmp_path / "b.age"


def tree(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, but for what SQLite makes anew for readers, and locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm", ".lock"))
    }


def test_a_backup_key_is_for_its_owner_and_never_overwritten(key: tuple[Path, str]) -> None:
    assert key[0].stat().st_mode & 0o777 == 0o600
    assert key[1].startswith("age1")
    assert "never overwritten" in run("backup-key", key[0]).stderr


def test_everything_is_in_it_but_sessions(made: Path, key: tuple[Path, str], config: Path, tmp_path: Path) -> None:
    assert made.stat().st_mode & 0o777 == 0o600
    with made.open("rb") as source, (tmp_path / "plain.tar").open("wb") as target:
        Unlock((key[0],)).decrypt(source, target)
    with tarfile.open(tmp_path / "plain.tar") as opened:
        names = opened.getnames()
        opened.extractall(tmp_path / "plain", filter="data")
    assert names == [
        "contents.json",
        "gateway.toml",
        "keys/edhoc.key",
        "keys/freshness.key",
        "fleet.db",
        f"blobs/{DIGEST.hex()}",
    ]
    assert (tmp_path / "plain" / "gateway.toml").read_bytes() == config.read_bytes()
    assert (tmp_path / "plain" / "keys" / "edhoc.key").read_bytes() == (config.parent / "keys/edhoc.key").read_bytes()
    assert SECRET not in (tmp_path / "plain" / "fleet.db").read_bytes()
    assert SECRET in (config.parent / "fleet.db").read_bytes()
    assert not (config.parent / ".backup").exists()


def test_what_was_written_says_what_it_is(config: Path, key: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    result = done("backup", tmp_path / "backups", "--recipient", key[1], "--config", config, "--json")
    told = json.loads(result.output)
    (file,) = (tmp_path / "backups").iterdir()
    assert told["file"] == str(file)
    assert told["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (told["bytes"], told["blobs"], told["sealed_keys"]) == (file.stat().st_size, 1, [])
    checked = json.loads(done("restore", "--check", file, "-i", key[0], "--json").output)
    assert (checked["sound"], checked["parcels"], checked["blobs"]) == (True, 1, 1)


def test_a_backup_is_checked_where_only_the_key_is(made: Path, key: tuple[Path, str], config: Path) -> None:
    before = tree(config.parent)
    assert "can be restored" in done("restore", "--check", made, "-i", key[0], "--config", config).output
    assert "can be restored" in done("restore", "--check", made, "-i", key[0], "--config", made / "no").output
    assert tree(config.parent) == before


def test_it_is_for_somebody_and_never_replaces_a_file(made: Path, key: tuple[Path, str], config: Path) -> None:
    before = made.read_bytes()
    assert "--recipient" in run("backup", made.parent / "c.age", "--config", config).stderr
    again = run("backup", made, "--recipient", key[1], "--config", config)
    assert (again.exit_code, "never replaces" in again.stderr) == (1, True)
    assert made.read_bytes() == before
    assert not (made.parent / "c.age").exists()


def test_a_restore_on_a_new_machine_needs_nothing_else(
    made: Path, key: tuple[Path, str], config: Path, tmp_path: Path
) -> None:
    place = tmp_path / "new" / "gateway.toml"
    result = done("restore", made, "-i", key[0], "--config", place)
    assert "joined since join anew" in result.stderr
    old, new = tree(config.parent), tree(place.parent)
    assert {name for name in new if not name.startswith("fleet.db")} == {
        name for name in old if not name.startswith("fleet.db")
    }
    for name in ("gateway.toml", "keys/edhoc.key", "keys/freshness.key"):
        assert new[name] == old[name]
    for name in ("keys/edhoc.key", "keys/freshness.key", "fleet.db"):
        assert (place.parent / name).stat().st_mode & 0o777 == 0o600
    done("check", "--config", place)
    assert BlobStore(place.parent / "blobs").has(DIGEST)


def test_a_restore_ends_sessions_and_codes_and_is_in_the_audit_log(
    made: Path, key: tuple[Path, str], config: Path
) -> None:
    with_fleet(config, lambda fleet: add_truck(fleet, "zm-arrow"))
    before = with_fleet(config, lambda fleet: fleet.audit_log())
    result = json.loads(done("restore", made, "-i", key[0], "--config", config, "--json").output)
    assert (result["codes_void"], result["trucks_joined_since"]) == (1, ["zm-arrow"])
    assert Path(result["database_kept_as"]).exists()
    assert result["keys_kept_as"] is None

    async def look(fleet: FleetStore) -> tuple[list[str], int, Any, Any]:
        trucks = [truck.name for truck in await fleet.trucks()]
        return trucks, len(await fleet.all_contexts()), await fleet.audit_log(), await fleet.verify_audit()

    trucks, contexts, log, chain = with_fleet(config, look)
    assert (trucks, contexts, chain.broken_at) == (["ke-arrow", "zm-arrow"], 0, None)
    assert (log[0].actor, log[0].action) == ("gateway", "gateway.restored")
    assert json.loads(log[0].detail_json)["replaced_head"] == before[0].hash.hex()

    async def redeem(fleet: FleetStore) -> None:
        await fleet.redeem_enrolment(b"h" * 32, "tz-arrow", b"k" * 32, b"c", b"d", NOW_MS)

    with pytest.raises(EnrolmentError):
        with_fleet(config, redeem)


def test_what_was_revoked_joined_anew_or_signed_since_is_kept(made: Path, key: tuple[Path, str], config: Path) -> None:
    signed = b"a newer delegation"
    newer = DocumentRecord(hashlib.sha256(signed).digest(), DocumentKind.DELEGATION, 7, "", signed, NOW_MS, "asha")

    async def since(fleet: FleetStore) -> None:
        await fleet.revoke_truck("ke-arrow", NOW_MS)
        await fleet.put_document(newer)
        await fleet.create_enrolment("zm-arrow", "zambia", b"z" * 32, NOW_MS * 2, "asha", now_ms=NOW_MS)
        await fleet.redeem_enrolment(b"z" * 32, "zm-arrow", b"1" * 32, b"c1", b"d1", NOW_MS)
        await fleet.create_enrolment("zm-arrow", "zambia", b"y" * 32, NOW_MS * 2, "asha", now_ms=NOW_MS)
        await fleet.redeem_enrolment(b"y" * 32, "zm-arrow", b"2" * 32, b"c2", b"d2", NOW_MS + 1)

    with_fleet(config, since)
    result = json.loads(done("restore", made, "-i", key[0], "--config", config, "--json").output)
    assert (result["revocations"], result["documents_since"]) == (1, 1)

    async def look(fleet: FleetStore) -> tuple[Any, Any, Any, Any]:
        keys = [each.signing_key for each in await fleet.keys_of("zm-arrow")]
        document = await fleet.newest_document(DocumentKind.DELEGATION)
        return await fleet.truck("ke-arrow"), await fleet.truck("zm-arrow"), keys, document

    revoked, joined, keys, document = with_fleet(config, look)
    assert revoked.revoked_ms == NOW_MS
    assert (joined.signing_key, joined.credential) == (b"2" * 32, b"c2")
    assert sorted(keys) == [b"1" * 32, b"2" * 32]
    assert document.signed == signed


def test_keys_that_differ_are_kept_beside(made: Path, key: tuple[Path, str], config: Path, tmp_path: Path) -> None:
    done("init", tmp_path / "other")
    other = tmp_path / "other" / "keys" / "edhoc.key"
    before = other.read_bytes()
    result = done("restore", made, "-i", key[0], "--config", tmp_path / "other" / "gateway.toml")
    assert "keys.before-1" in result.output
    assert (tmp_path / "other" / "keys.before-1" / "edhoc.key").read_bytes() == before
    assert other.read_bytes() == (config.parent / "keys" / "edhoc.key").read_bytes()


def test_a_present_state_that_is_newer_is_replaced_only_when_that_is_said(
    made: Path, key: tuple[Path, str], config: Path
) -> None:
    later = json.loads(done("restore", "--check", made, "-i", key[0], "--json").output)["made_ms"] + 1

    async def hear(fleet: FleetStore) -> None:
        await fleet.heard("ke-arrow", "sat", later, None)

    with_fleet(config, hear)
    before = tree(config.parent)
    refused = run("restore", made, "-i", key[0], "--config", config)
    assert (refused.exit_code, "--yes" in refused.stderr) == (1, True)
    after = tree(config.parent)
    assert {name: after[name] for name in before} == before
    done("restore", made, "-i", key[0], "--config", config, "--yes")


def test_a_running_gateway_is_not_restored_over(made: Path, key: tuple[Path, str], config: Path) -> None:
    lock = folder_lock(config.parent)
    lock.take()
    try:
        for args in (("restore", made, "-i", key[0]), ("migrate",)):
            result = run(*args, "--config", config)
            assert (result.exit_code, "stop it first" in result.stderr) == (1, True)
    finally:
        lock.release()


def rewritten(key: tuple[Path, str], made: Path, folder: Path, change: Callable[[Path], None]) -> Path:
    """A backup with other members than `digitruck-gateway backup` would write, for the same key."""
    plain = folder / "plain"
    with made.open("rb") as source, (folder / "plain.tar").open("wb") as target:
        Unlock((key[0],)).decrypt(source, target)
    with tarfile.open(folder / "plain.tar") as opened:
        opened.extractall(plain, filter="data")
    change(plain)
    order = ["contents.json", "gateway.toml"]
    names = sorted(
        (str(path.relative_to(plain)) for path in plain.rglob("*") if path.is_file()),
        key=lambda name: (order.index(name) if name in order else 9, name),
    )
    with tarfile.open(folder / "new.tar", "w", format=tarfile.GNU_FORMAT) as written:
        for name in names:
            written.add(plain / name, name)
    with (folder / "new.tar").open("rb") as source, (folder / "new.age").open("wb") as target:
        Lock((key[1],)).encrypt(source, target)
    return folder / "new.age"


def contents(plain: Path, **changes: object) -> None:
    path = plain / "contents.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rot(plain: Path) -> None:
    data = bytearray((plain / "fleet.db").read_bytes())
    data[4096 : 40 * 4096] = b"\x55" * (39 * 4096)
    (plain / "fleet.db").write_bytes(data)


def newer_schema(plain: Path) -> None:
    with sqlite3.connect(plain / "fleet.db") as opened:
        opened.execute("UPDATE alembic_version SET version_num = 'from the future'")


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "newer format": (lambda plain: contents(plain, format=2), "newer release"),
    "newer schema": (newer_schema, "newer release"),
    "no contents": (lambda plain: (plain / "contents.json").write_text("[]"), "cannot be read"),
    "a key less": (lambda plain: (plain / "keys" / "edhoc.key").unlink(), "contents say"),
    "no configuration": (
        lambda plain: (contents(plain, files=4), (plain / "gateway.toml").unlink())[0],
        "contents say",
    ),
    "no database": (lambda plain: (contents(plain, files=4), (plain / "fleet.db").unlink())[0], "no database"),
    "another name": (lambda plain: (contents(plain, files=6), (plain / "x.sh").write_text("x"))[0], "not a member"),
    "a rotten database": (rot, "damaged|no database of a fleet"),
    "no database at all": (lambda plain: (plain / "fleet.db").write_bytes(b"rubble" * 999) and None, "no database"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_backup_that_is_not_what_it_should_be_changes_nothing(
    made: Path, key: tuple[Path, str], config: Path, tmp_path: Path, name: str
) -> None:
    change, words = HOSTILE[name]
    file = rewritten(key, made, tmp_path, change)
    before = tree(config.parent)
    for args in (("--yes",), ("--check",)):
        result = run("restore", file, "-i", key[0], "--config", config, *args)
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
        assert any(word in result.stderr for word in words.split("|")), result.stderr
    assert tree(config.parent) == before
    assert not (config.parent / ".restore").exists()


@pytest.mark.parametrize("change", ["cut", "flip", "plain", "empty"])
def test_a_damaged_or_foreign_file_changes_nothing(
    made: Path, key: tuple[Path, str], config: Path, change: str
) -> None:
    data = bytearray(made.read_bytes())
    if change == "cut":
        data = data[: len(data) // 2]
    elif change == "flip":
        data[-100] ^= 1
    elif change == "plain":
        data = bytearray((config.parent / "fleet.db").read_bytes())
    else:
        data = bytearray()
    made.write_bytes(data)
    before = tree(config.parent)
    result = run("restore", made, "-i", key[0], "--config", config)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "damaged or cut off" in result.stderr or "no backup" in result.stderr
    assert tree(config.parent) == before


def test_blobs_that_were_rotten_do_not_spoil_the_rest(key: tuple[Path, str], config: Path, tmp_path: Path) -> None:
    path = BlobStore(config.parent / "blobs").path(DIGEST)
    path.write_bytes(LESSON[:-1] + b"!")
    made = run("backup", tmp_path / "b.age", "--recipient", key[1], "--config", config)
    assert DIGEST.hex() in made.stderr
    check = run("restore", "--check", tmp_path / "b.age", "-i", key[0])
    assert (check.exit_code, DIGEST.hex() in check.stderr) == (1, True)
    result = done("restore", tmp_path / "b.age", "-i", key[0], "--config", tmp_path / "new" / "gateway.toml")
    assert DIGEST.hex() in result.stderr
    assert not BlobStore(tmp_path / "new" / "blobs").has(DIGEST)


def test_blobs_may_be_left_out(key: tuple[Path, str], config: Path, tmp_path: Path) -> None:
    done("backup", tmp_path / "b.age", "--recipient", key[1], "--config", config, "--without-blobs")
    done("restore", tmp_path / "b.age", "-i", key[0], "--config", tmp_path / "new" / "gateway.toml")
    assert not BlobStore(tmp_path / "new" / "blobs").has(DIGEST)


def test_sealed_keys_are_said_to_be_missing(key: tuple[Path, str], config: Path, tmp_path: Path) -> None:
    for name in ("edhoc.key", "freshness.key"):
        (config.parent / "keys" / name).rename(tmp_path / name)
    made = done("backup", tmp_path / "b.age", "--recipient", key[1], "--config", config)
    assert "NOT in it: edhoc.key" in made.stderr
    result = done("restore", tmp_path / "b.age", "-i", key[0], "--config", tmp_path / "new" / "gateway.toml")
    assert "holds no keys" in result.stderr


def test_a_service_that_is_handed_its_keys_backs_them_up(
    key: tuple[Path, str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    for name, credential in (("edhoc.key", "edhoc"), ("freshness.key", "freshness")):
        (config.parent / "keys" / name).rename(folder / f"digitruck-gateway.{credential}")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    told = json.loads(done("backup", tmp_path / "b.age", "-r", key[1], "--config", config, "--json").output)
    assert (told["keys"], told["sealed_keys"]) == (["edhoc.key", "freshness.key"], [])
    assert "credential" in done("check", "--config", config).output


def test_a_failure_before_the_last_step_leaves_the_old_state(
    made: Path, key: tuple[Path, str], config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(config.parent)

    def full(part: Path, place: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(restoring, "swap", full)
    result = run("restore", made, "-i", key[0], "--config", config)
    assert (result.exit_code, "No space" in result.stderr) == (1, True)
    assert tree(config.parent) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("a small file system needs root and mount")
    yield place
    subprocess.run(["umount", str(place)], check=True, timeout=60)


def test_a_disk_that_fills_up_midway_leaves_nothing(
    key: tuple[Path, str], config: Path, tmp_path: Path, small_disk: Path
) -> None:
    large = os.urandom(1 << 20)
    BlobStore(config.parent / "blobs").write(hashlib.sha256(large).digest(), [large])
    result = run("backup", small_disk / "b.age", "--recipient", key[1], "--config", config)
    assert (result.exit_code, "No space left" in result.stderr) == (1, True)
    assert list(small_disk.iterdir()) == []
    done("backup", tmp_path / "b.age", "--recipient", key[1], "--config", config)
    (small_disk / "data").mkdir()
    result = run("restore", tmp_path / "b.age", "-i", key[0], "--config", small_disk / "data" / "gateway.toml")
    assert (result.exit_code, "No space left" in result.stderr) == (1, True)
    assert tree(small_disk / "data") == {}


def test_of_postgresql_all_but_the_database_is_backed_up(key: tuple[Path, str], config: Path, tmp_path: Path) -> None:
    text = config.read_text()
    config.write_text('database = "postgresql://127.0.0.1:1/fleet"\n' + text)
    made = done("backup", tmp_path / "b.age", "--recipient", key[1], "--config", config)
    assert "pg_dump" in made.output
    checked = json.loads(done("restore", "--check", tmp_path / "b.age", "-i", key[0], "--json").output)
    assert (checked["database"], checked["parcels"]) == ("postgresql", None)
    config.write_text(text)
    other = run("restore", tmp_path / "b.age", "-i", key[0], "--config", config)
    assert (other.exit_code, "another kind" in other.stderr) == (1, True)


def test_progress_goes_to_its_end(made: Path, key: tuple[Path, str], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    stage = tmp_path / "stage"
    stage.mkdir()
    unpacked = unpacking.unpack(made, Unlock((key[0],)), stage, lambda *_: False, lambda *now: seen.append(now))
    assert seen[-1] == (unpacked.contents.bytes, unpacked.contents.bytes)
    assert seen == sorted(seen)
