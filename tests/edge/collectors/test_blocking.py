from __future__ import annotations

import asyncio
import threading

import pytest

from edge.collectors.base import SourceError
from edge.collectors.blocking import BlockingCalls


async def test_a_hung_call_leaves_the_loop_free_and_starts_no_second_thread():
    release = threading.Event()
    calls = BlockingCalls("disk")
    hung = asyncio.ensure_future(calls.call(release.wait))
    await asyncio.sleep(0)
    hung.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hung
    threads = threading.active_count()
    for _ in range(5):
        with pytest.raises(SourceError, match="still hangs"):
            await calls.call(lambda: 1)
    assert threading.active_count() == threads
    release.set()
    for _ in range(200):
        try:
            assert await calls.call(lambda: 2) == 2
            return
        except SourceError:
            await asyncio.sleep(0.005)
    pytest.fail("the thread was not given back")


async def test_what_a_call_raises_is_raised_here():
    def fail() -> None:
        raise OSError("no such disk")

    calls = BlockingCalls("disk")
    with pytest.raises(OSError, match="no such disk"):
        await calls.call(fail)
    assert await calls.call(lambda: None) is None
