"""Logs are one JSON object a line on stderr, of the level asked for, with the traceback of what went wrong."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator

import pytest
import structlog

from store.logs import set_up_logs

Logged = Callable[[str], list[dict[str, object]]]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Logged]:
    """Log three events at a level; return the lines that came out."""

    def log_at(level: str) -> list[dict[str, object]]:
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        set_up_logs(level)
        log = structlog.get_logger("a.test")
        log.debug("seen", secret=b"\x00\xff", text="two\nlines")
        log.info("told", truck="ke-arrow", count=3)
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            log.exception("failed")
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    before = structlog.get_config()
    yield log_at
    structlog.configure(**before)


def test_each_line_is_a_json_object_with_its_fields(logged: Logged) -> None:
    told, failed = logged("info")
    assert (told["event"], told["truck"], told["count"], told["level"]) == ("told", "ke-arrow", 3, "info")
    assert str(told["timestamp"]).endswith("Z")
    assert "ZeroDivisionError" in str(failed["exception"])


@pytest.mark.parametrize(("level", "events"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 1)])
def test_a_level_keeps_what_is_below_it_out(logged: Logged, level: str, events: int) -> None:
    assert len(logged(level)) == events


def test_a_value_with_line_ends_stays_on_its_line(logged: Logged) -> None:
    assert logged("debug")[0]["text"] == "two\nlines"
