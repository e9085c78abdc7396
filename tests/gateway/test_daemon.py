"""The gateway as a whole: it starts and stops, holds its folder alone, and a kill loses nothing acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from gateway.config import CoapSettings, GatewayConfig, HttpSettings
from gateway.daemon import Gateway, database_url, initialise, load_keys, make_keys
from protocol.errors import LocalError, PeerError
from protocol.joincode import read_join_code
from store.errors import StoreInUseError
from store.fleet.fleet import FleetStore
from tests.gateway.coapside import EPOCH, ScriptedTruck, enrol_directly, open_truck, rows_from
from tests.gateway.fleets import NOW_S, Signers

CONFIG = GatewayConfig(
    coap=CoapSettings(listen="127.0.0.1:0", public=("127.0.0.1:5683",)), http=HttpSettings(listen="127.0.0.1:0")
)


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    await initialise(path, coap="127.0.0.1:0", http="127.0.0.1:0")
    return path


def address_of(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def test_it_serves_both_sides_refuses_a_second_one_and_starts_again(folder: Path) -> None:
    for _ in range(2):
        gateway = Gateway(CONFIG, folder)
        await gateway.start()
        try:
            assert gateway.api.port > 0
            assert address_of(gateway.coap_address)[1] > 0
            with pytest.raises(StoreInUseError):
                await Gateway(CONFIG, folder).start()
        finally:
            await gateway.close()


async def test_a_code_needs_a_root_and_then_says_all_that_a_truck_must_know(folder: Path) -> None:
    gateway = Gateway(CONFIG, folder)
    await gateway.start()
    try:
        with pytest.raises(PeerError, match="trust init"):
            gateway.join_code("ke-arrow", bytes(16))
        root = await gateway.documents.accept(Signers().root_document(), "ada")
        code = read_join_code(gateway.join_code("ke-arrow", bytes(16)))
        assert (code.truck, code.addresses, code.root) == ("ke-arrow", ("127.0.0.1:5683",), root.digest)
        assert code.gateway_key == load_keys(folder / "keys").exchange.public
    finally:
        await gateway.close()


async def test_a_revoked_truck_is_refused_within_a_second(folder: Path) -> None:
    gateway = Gateway(CONFIG, folder)
    await gateway.start()
    try:
        async with open_truck(address_of(gateway.coap_address)) as truck:
            truck.gateway_public = load_keys(folder / "keys").exchange.public
            await enrol_directly(gateway.fleet, truck)
            await truck.handshake()
            assert (await truck.upload(truck.offer())).cumulative == 1
            await gateway.fleet.revoke_truck(truck.name, 1)
            await asyncio.sleep(0.8)
            with pytest.raises(Exception, match="Object-Security"):
                await truck.upload()
    finally:
        await gateway.close()


async def test_a_gateway_that_is_killed_amid_ingest_loses_nothing_acknowledged(folder: Path) -> None:
    fleet = await FleetStore.open(database_url(CONFIG, folder))
    async with open_truck(("127.0.0.1", 1)) as truck:
        await enrol_directly(fleet, truck)
        await fleet.close()
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "serve", "--config", str(folder / "gateway.toml")),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            assert child.stdout is not None
            async with asyncio.timeout(60):
                served = json.loads(await child.stdout.readline())
            truck.address = ("127.0.0.1", address_of(served["coap"])[1])
            truck.gateway_public = load_keys(folder / "keys").exchange.public
            acknowledged = await _upload_until_killed(truck, child)
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    assert len(acknowledged) >= 40
    fleet = await FleetStore.open(database_url(CONFIG, folder))
    state = await fleet.epoch_state("ke-arrow", EPOCH)
    report = await fleet.scrub()
    await fleet.close()
    assert state is not None
    assert all(state.covers(sequence) for sequence in acknowledged)
    assert report.sound


async def _upload_until_killed(truck: ScriptedTruck, child: asyncio.subprocess.Process) -> set[int]:
    acknowledged: set[int] = set()
    await truck.handshake()
    await truck.upload(truck.offer())

    async def lane() -> None:
        while child.returncode is None:
            sealed = truck.batch(rows_from(NOW_S + 600 * truck.sequence))
            sequence = truck.sequence
            try:
                ack = await truck.upload(sealed, answer_s=1.0)
            except Exception:
                return
            if ack.covers(sequence):
                acknowledged.add(sequence)
            if len(acknowledged) == 40:
                child.send_signal(signal.SIGKILL)

    await asyncio.gather(*(lane() for _ in range(8)))
    return acknowledged


async def test_init_makes_no_second_gateway_in_a_folder(folder: Path) -> None:
    with pytest.raises(LocalError, match="holds a gateway already"):
        await initialise(folder, coap="127.0.0.1:0", http="127.0.0.1:0")


@pytest.mark.parametrize("coap", ["nonsense", "host:99999", 'x"\n:1'])
async def test_init_refuses_an_address_that_is_none_and_leaves_nothing(tmp_path: Path, coap: str) -> None:
    with pytest.raises(LocalError):
        await initialise(tmp_path / "data", coap=coap, http="127.0.0.1:8080")
    assert not (tmp_path / "data").exists()


def test_keys_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    first = make_keys(tmp_path / "keys")
    assert make_keys(tmp_path / "keys") == first or make_keys(tmp_path / "keys").exchange == first.exchange
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def test_missing_and_damaged_keys_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="digitruck-gateway init"):
        load_keys(tmp_path / "keys")
    make_keys(tmp_path / "keys")
    (tmp_path / "keys" / "edhoc.key").write_bytes(b"short")
    with pytest.raises(LocalError, match="restore it from a backup"):
        load_keys(tmp_path / "keys")
