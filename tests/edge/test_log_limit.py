from __future__ import annotations

from edge.log_limit import LINES_IN_WINDOW, WINDOW_S, LogLimit


def test_a_flood_of_one_event_is_capped_and_its_size_is_said_later():
    limit = LogLimit()
    admitted = [limit.admit("collector.failed", now_s=float(second)) for second in range(500)]
    assert admitted.count(None) == 500 - LINES_IN_WINDOW
    assert limit.admit("collector.failed", now_s=WINDOW_S + 1) == 500 - LINES_IN_WINDOW


def test_one_event_does_not_silence_another():
    limit = LogLimit()
    for _ in range(100):
        limit.admit("a", now_s=0.0)
    assert limit.admit("b", now_s=0.0) == 0
