"""A short seeded run of every fuzz target, and proof that the engine would notice."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import pytest

from protocol.errors import MalformedError
from tests.fuzz import engine
from tests.fuzz.engine import Running, Target, inputs, replay, run
from tests.fuzz.instruments import instrument_targets
from tests.fuzz.parsers import Parser, parser_targets
from tests.fuzz.servers import server_targets

SEED = 20261123
PARSER_INPUTS = 150
# Of HTTP each input that is cut short is waited for.
SERVER_INPUTS = {"datagrams": 500, "http-api": 15, "http-classroom": 15}
# A pack is decoded whole for each input.
PACK_INPUTS = 40


@pytest.mark.parametrize("target", [*parser_targets(), *instrument_targets()], ids=lambda target: target.name)
def test_no_input_breaks_a_parser(target: Target) -> None:
    count = PACK_INPUTS if target.name == "packs" else PARSER_INPUTS
    found = run(target, seed=SEED, count=count)
    assert found.broken_bars() == []
    assert found.inputs == count


@pytest.mark.parametrize("target", server_targets(), ids=lambda target: target.name)
def test_no_input_breaks_a_server(target: Target) -> None:
    found = run(target, seed=SEED, count=SERVER_INPUTS[target.name])
    assert found.broken_bars() == []
    assert found.inputs == SERVER_INPUTS[target.name]


@pytest.mark.parametrize("target", [*parser_targets(), *instrument_targets()], ids=lambda target: target.name)
def test_each_seed_is_an_input_that_the_target_takes(target: Target) -> None:
    """Seeds that are refused at the door would fuzz nothing behind it."""
    with target.open() as (running, seeds):
        taken = 0
        for seed in seeds:
            try:
                running.feed(seed)
                taken += 1
            except (MalformedError, AssertionError):
                continue
    assert taken


def _made(feed) -> Target:  # type: ignore[no-untyped-def]
    @contextmanager
    def open_target() -> Iterator[tuple[Running, Sequence[bytes]]]:
        yield Parser(feed), [b"seed"]

    return Target("made", open_target)


def _crash(data: bytes) -> None:
    if len(data) > 4:
        raise KeyError(data)


def _hang(data: bytes) -> None:
    while data != b"seed":
        pass


def _wait(data: bytes) -> None:
    if data != b"seed":
        time.sleep(60)


def _grow(data: bytes, kept: list[bytearray] = []) -> None:  # noqa: B006 - the leak is the point
    kept.append(bytearray(b"x" * 400_000))


def _chatter(data: bytes) -> None:
    import logging

    logging.getLogger("chatter").error("x" * 5_000)


def test_an_uncaught_exception_is_found_and_replays() -> None:
    found = run(_made(_crash), seed=1, count=60)
    assert found.fault_count > 0
    assert "KeyError" in found.faults[0]
    data = bytes.fromhex(found.faults[0].rpartition("input: ")[2])
    assert replay(_made(_crash), data).fault_count == 1


def test_a_hang_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "DEADLINE_S", 0.02)
    for hangs in (_hang, _wait):
        found = run(_made(hangs), seed=1, count=2)
        assert "took longer" in found.faults[0]


def test_growth_and_chatter_are_found() -> None:
    assert [each for each in run(_made(_grow), seed=1, count=400).broken_bars() if "memory grew" in each]
    assert [each for each in run(_made(_chatter), seed=1, count=300).broken_bars() if "bytes of logs" in each]


def test_a_seed_replays_a_run() -> None:
    target = _made(_crash)
    first, again, other = (list(islice(inputs(target, [b"seed"], seed), 200)) for seed in (1, 1, 2))
    assert first == again != other
