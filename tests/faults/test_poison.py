"""What kills its process at every try is put aside after a few, reported, and holds up nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gateway.decoding
import gateway.ingest
from edge.configure import Effective
from edge.daemon import Edge
from gateway.commits import GroupCommit
from gateway.ingest import Ingest
from gateway.rollups import RollupTask
from protocol.messages import Event, Parcel, Upload, decode_payload, seal, unseal
from protocol.numbers import Outcome, ParcelKind, Precedence, Refusal
from store.attempts import ATTEMPTS_MAX, Attempts
from store.fleet.fleet import FleetStore, migrate
from tests.faults.scenes import ConfigScene, be_quiet, edge_config, open_state, trust_config
from tests.gateway.fleets import EPOCH, NOW_MS, NOW_S, add_truck, truck_key
from tests.powercut.nursery import Nursery, Tell

_LIVES_MAX = 12
_SECONDS = 60.0


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery(("tests.faults.test_poison",))
    yield nursery
    nursery.close()


def run_until_done(nursery: Nursery, function: str, folder: Path) -> tuple[int, list[list[Any]]]:
    """Start a process again and again, as a service manager does; return how many died and what the last one told."""
    for deaths in range(_LIVES_MAX):
        life = nursery.start(f"tests.faults.test_poison:{function}", str(folder))
        life.wait(_SECONDS)
        told = life.kill()
        if any(words[0] == "done" for words in told):
            return deaths, told
    raise AssertionError(f"{function} never came to an end: {told}")


def roll_up(tell: Tell, folder: str) -> None:
    """Roll up all batches; decoding one of them kills this process."""
    be_quiet()
    real = gateway.decoding.decode_batch

    def decode(record: Any, *rest: Any) -> Any:
        if record.key.sequence == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(record, *rest)

    gateway.decoding.decode_batch = decode

    async def work() -> None:
        fleet = await FleetStore.open(f"sqlite:///{folder}/fleet.db")
        rolled = await RollupTask(fleet, Attempts(Path(folder) / "decoding.attempts")).catch_up()
        tell("done", rolled, [[each.sequence, each.reason] for each in await fleet.quarantined("ke-arrow")])

    asyncio.run(work())


def test_a_batch_that_kills_the_rollups_is_put_aside_and_the_others_are_added(nursery: Nursery, tmp_path: Path) -> None:
    async def fill() -> None:
        await migrate(f"sqlite:///{tmp_path}/fleet.db")
        fleet = await FleetStore.open(f"sqlite:///{tmp_path}/fleet.db")
        truck = await add_truck(fleet)
        await truck.register()
        for number in range(3):
            await truck.batch([(NOW_S + number, (2600, 5))])
        await fleet.close()

    asyncio.run(fill())
    deaths, told = run_until_done(nursery, "roll_up", tmp_path)
    assert deaths == ATTEMPTS_MAX
    assert told == [["done", 3, [[3, "the batch does not decode"]]]]


def start_truck(tell: Tell, folder: str) -> None:
    """Start a truck's daemon; to apply configuration 2 kills this process."""
    be_quiet()
    real = Edge._apply

    async def apply(truck: Edge, settings: Effective) -> None:
        if settings.batch_age_s == 1_002:
            os.kill(os.getpid(), signal.SIGKILL)
        await real(truck, settings)

    Edge._apply = apply  # type: ignore[method-assign]

    async def work() -> None:
        truck = Edge(edge_config(), Path(folder))
        await truck.start()
        told = [truck.configurator.applied_version, truck.recorder.batch_age_s]
        rejected = await truck.writer.run(lambda: _rejections(truck))
        await truck.close()
        tell("done", *told, rejected)

    asyncio.run(work())


def _rejections(truck: Edge) -> list[list[Any]]:
    found = [unseal(sealed) for (sealed,) in truck.state.rows("SELECT sealed FROM parcels ORDER BY id")]
    receipts = [decode_payload(each) for each in found if each.kind is ParcelKind.RECEIPT]
    return [[each.version, each.reason] for each in receipts if each.outcome is Outcome.REJECTED]


def test_a_configuration_that_kills_the_daemon_is_rejected_and_the_one_before_holds(
    nursery: Nursery, tmp_path: Path
) -> None:
    ConfigScene().prepare(tmp_path)
    with contextlib.closing(open_state(tmp_path)) as database:
        trust_config(database, 2)
    deaths, told = run_until_done(nursery, "start_truck", tmp_path)
    assert deaths == ATTEMPTS_MAX
    assert told == [["done", 1, 1_001.0, [[2, "put aside: it was begun 5 times and never came to an end"]]]]


def event(sequence: int, name: str) -> bytes:
    payload = Event(name, NOW_MS).encode()
    parcel = Parcel(EPOCH, sequence, Precedence.PRIORITY, ParcelKind.EVENT, payload)
    return seal(truck_key("ke-arrow"), parcel, "ke-arrow")


def take_upload(tell: Tell, folder: str) -> None:
    """Take an upload of three parcels; checking the second kills this process."""
    be_quiet()
    real = gateway.ingest.decode_payload

    def decode(parcel: Parcel) -> Any:
        if parcel.sequence == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(parcel)

    gateway.ingest.decode_payload = decode

    async def work() -> None:
        fleet = await FleetStore.open(f"sqlite:///{folder}/fleet.db")
        commits = GroupCommit(fleet)
        ingest = Ingest(fleet, commits, now_ms=lambda: NOW_MS, attempts=Attempts(Path(folder) / "ingest.attempts"))
        committing = asyncio.create_task(commits.run())
        truck = await fleet.truck("ke-arrow")
        assert truck is not None
        parcels = tuple(event(sequence, f"e{sequence}") for sequence in (1, 2, 3))
        ack, _ = await ingest.upload(truck, "sat", Upload(epoch=EPOCH, parcels=parcels))
        committing.cancel()
        aside = [each.sequence for each in await fleet.quarantined("ke-arrow")]
        tell("done", ack.cumulative, list(ack.ranges), list(ack.refused), aside)

    asyncio.run(work())


def test_a_parcel_that_kills_the_gateway_is_refused_and_the_others_are_stored(nursery: Nursery, tmp_path: Path) -> None:
    async def enrol() -> None:
        await migrate(f"sqlite:///{tmp_path}/fleet.db")
        fleet = await FleetStore.open(f"sqlite:///{tmp_path}/fleet.db")
        await add_truck(fleet)
        await fleet.close()

    asyncio.run(enrol())
    deaths, told = run_until_done(nursery, "take_upload", tmp_path)
    assert deaths == ATTEMPTS_MAX
    assert told == [["done", 1, [[3, 3]], [[2, int(Refusal.MALFORMED)]], [2]]]
