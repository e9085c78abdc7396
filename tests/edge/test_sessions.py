"""A teacher enters lessons on the classroom's page: numbers only, bounded, from that page alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from edge.pages import _BY_LANGUAGE
from edge.sessions import _WORDS, EVENT, SESSIONS_A_DAY, SessionPages
from protocol.errors import QueueFullError
from protocol.numbers import Precedence


@dataclass
class Sink:
    """A recorder that keeps what it was given."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    is_full: bool = False

    async def event(
        self, name: str, precedence: Precedence, values: tuple[tuple[str, Any], ...], time_s: float | None
    ) -> int:
        if self.is_full:
            raise QueueFullError("the truck's disk share is full")
        assert (precedence, time_s) == (Precedence.NORMAL, None)
        self.events.append((name, dict(values)))
        return len(self.events)


@dataclass
class Classroom:
    client: TestClient[Any, Any]
    sink: Sink
    now_s: float = 0.0

    async def post(self, *, origin: str | None = "", **fields: str) -> tuple[int, str]:
        base = str(self.client.make_url("/")).rstrip("/")
        headers = {} if origin is None else {"Origin": origin or base}
        async with self.client.post("/sessions", data=fields, headers=headers) as answer:
            return answer.status, await answer.text()


async def opened(pin: str | None) -> Classroom:
    sink = Sink()
    app = web.Application()
    holder: list[Classroom] = []
    pages = SessionPages(sink, pin=pin, monotonic=lambda: holder[0].now_s)
    app.router.add_get("/sessions", pages.show)
    app.router.add_post("/sessions", pages.enter)
    client = TestClient(TestServer(app))
    await client.start_server()
    holder.append(Classroom(client, sink))
    return holder[0]


@pytest.fixture
async def classroom() -> AsyncIterator[Classroom]:
    made = await opened(None)
    yield made
    await made.client.close()


def test_every_language_of_the_start_page_has_this_page_too() -> None:
    assert _WORDS.keys() == _BY_LANGUAGE.keys()


async def test_a_lesson_is_one_event_of_two_numbers(classroom: Classroom) -> None:
    async with classroom.client.get("/sessions", headers={"Accept-Language": "fr"}) as shown:
        assert "Combien de participants" in await shown.text()
    status, text = await classroom.post(participants="18", minutes="90")
    assert status == 200
    assert "Entered. Thank you." in text
    assert "1 lessons, 18 participants" in text
    assert classroom.sink.events == [(EVENT, {"participants": 18, "minutes": 90})]


@pytest.mark.parametrize(
    ("participants", "minutes"),
    [
        ("0", "90"),
        ("501", "90"),
        ("18", "0"),
        ("18", "721"),
        ("-3", "9"),
        ("1e2", "9"),
        ("", ""),
        ("٣", "9"),
        ("9" * 9, "1"),
    ],
)
async def test_what_is_no_lesson_is_refused_and_says_why(classroom: Classroom, participants: str, minutes: str) -> None:
    status, text = await classroom.post(participants=participants, minutes=minutes)
    assert status == 400
    assert "1 to 500" in text
    assert classroom.sink.events == []


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null"])
async def test_a_form_of_another_page_enters_nothing(classroom: Classroom, origin: str | None) -> None:
    assert (await classroom.post(origin=origin, participants="18", minutes="90"))[0] == 403
    assert classroom.sink.events == []


async def test_there_are_only_so_many_lessons_in_a_day(classroom: Classroom) -> None:
    for _ in range(SESSIONS_A_DAY):
        assert (await classroom.post(participants="18", minutes="30"))[0] == 200
    assert (await classroom.post(participants="18", minutes="30"))[0] == 429
    classroom.now_s += 86_400.0
    assert (await classroom.post(participants="18", minutes="30"))[0] == 200


async def test_a_full_truck_says_so_and_counts_nothing(classroom: Classroom) -> None:
    classroom.sink.is_full = True
    status, text = await classroom.post(participants="18", minutes="30")
    assert status == 503
    assert "share is full" in text
    assert "0 lessons" in text


async def test_a_pin_is_asked_for_where_there_is_one_and_cannot_be_guessed() -> None:
    classroom = await opened("4711")
    try:
        assert (await classroom.post(participants="18", minutes="30", pin="4711"))[0] == 200
        for guess in ("", "0000", "0001", "0002", "0003"):
            assert (await classroom.post(participants="18", minutes="30", pin=guess))[0] == 403
        assert (await classroom.post(participants="18", minutes="30", pin="4711"))[0] == 403
        classroom.now_s += 61
        assert (await classroom.post(participants="18", minutes="30", pin="4711"))[0] == 200
        assert len(classroom.sink.events) == 2
    finally:
        await classroom.client.close()
