"""Logs say what happened and can never be made to fill a disk."""

from __future__ import annotations

import json

import pytest
import structlog

from store.logs import EVENTS_A_PERIOD, PERIOD_S, LogCap, set_up_logs


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def passed(cap: LogCap, event: str, times: int) -> list[dict[str, object]]:
    records = []
    for _ in range(times):
        try:
            records.append(dict(cap(None, "info", {"event": event})))
        except structlog.DropEvent:
            continue
    return records


def test_an_event_is_written_so_often_a_period_and_no_more() -> None:
    cap = LogCap(Clock())
    assert len(passed(cap, "request.refused", 1000)) == EVENTS_A_PERIOD


def test_one_event_does_not_silence_another() -> None:
    cap = LogCap(Clock())
    passed(cap, "request.refused", 1000)
    assert len(passed(cap, "gateway.started", 1)) == 1


def test_what_was_kept_back_is_said_with_the_next_record() -> None:
    clock = Clock()
    cap = LogCap(clock)
    passed(cap, "request.refused", EVENTS_A_PERIOD + 7)
    clock.now = PERIOD_S
    first, second = passed(cap, "request.refused", 2)
    assert first["suppressed"] == 7
    assert "suppressed" not in second


def test_the_set_up_writes_json_to_stderr_and_caps_it(capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    try:
        set_up_logs("info")
        log = structlog.get_logger("a test")
        for number in range(EVENTS_A_PERIOD + 50):
            log.info("parcel.refused", truck="ke-arrow", number=number)
        log.debug("nobody.hears")
    finally:
        structlog.configure(**before)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == EVENTS_A_PERIOD
    assert json.loads(lines[0])["truck"] == "ke-arrow"
