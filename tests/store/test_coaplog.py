"""The capped logger: few records, short ones, no tracebacks, and the count of what it held back."""

import logging
from collections.abc import Iterator

import pytest

from store import coaplog
from store.coaplog import CappedLogger, quiet_stock_loggers


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def logger(kept: Kept) -> CappedLogger:
    parent = logging.Logger("test_coaplog")
    parent.addHandler(kept)
    return CappedLogger("capped", parent)


def test_only_errors_pass(logger: CappedLogger, kept: Kept) -> None:
    logger.debug("a")
    logger.info("b")
    logger.warning("c")
    logger.error("broken %s", "pipe")
    assert kept.lines == ["coap.library_error detail='broken pipe' suppressed=0"]


def test_a_flood_is_capped_and_the_rest_is_counted(
    logger: CappedLogger, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(coaplog.time, "monotonic", lambda: now[0])
    logger._period_began = 100.0
    for number in range(1000):
        logger.error("junk %d", number)
    assert len(kept.lines) == coaplog.RECORDS_A_PERIOD
    now[0] += coaplog.PERIOD_S
    logger.error("later")
    assert kept.lines[-1] == f"coap.library_error detail='later' suppressed={1000 - coaplog.RECORDS_A_PERIOD}"


def test_a_record_has_one_short_line_and_no_traceback(logger: CappedLogger, kept: Kept) -> None:
    try:
        raise ValueError("inner")
    except ValueError as error:
        logger.error("forged\nline %s", "x" * 5000, exc_info=error)
    (line,) = kept.lines
    assert len(line) < 400
    assert "\n" not in line
    assert "Traceback" not in line


def test_children_share_the_cap(logger: CappedLogger, kept: Kept) -> None:
    for _ in range(50):
        logger.getChild("blockwise-requester").error("x")
    assert len(kept.lines) == coaplog.RECORDS_A_PERIOD


def test_wrong_arguments_and_a_failing_repr_do_not_raise(logger: CappedLogger, kept: Kept) -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    logger.error("two %s %s", "one")
    logger.error("%r", Hostile())
    logger.error("aiocoap passes this: %s", 1, exception=ValueError("x"))  # type: ignore[call-arg]
    assert len(kept.lines) == 3


@pytest.fixture
def restored_levels() -> Iterator[None]:
    names = ("coap", "coap-server", "coap-server.oscore-site", "aiocoap")
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    yield
    for logger, level in before:
        logger.setLevel(level)


@pytest.mark.usefixtures("restored_levels")
def test_the_loggers_that_aiocoap_takes_by_name_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    quiet_stock_loggers()
    for name in ("coap", "coap-server", "coap-server.oscore-site", "coap.edhoc"):
        logging.getLogger(name).error("x")
    assert caplog.records == []
