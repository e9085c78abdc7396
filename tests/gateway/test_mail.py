"""Alarms by e-mail, against a real SMTP server: each once, the worst first, quiet at night, nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP

from gateway.config import AlertSettings, ConfigError, MailSettings, parse_config
from gateway.mail import MailTask, is_quiet
from store.fleet.alarms import AlarmNote
from store.fleet.fleet import FleetStore
from tests.gateway.fleets import NOW_MS


class Inbox:
    """What the server took; `refuse` makes it answer as a full disk would."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.refuse = False

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.refuse:
            return "452 4.3.1 Insufficient system storage"
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        return "250 OK"


@pytest.fixture
async def inbox() -> AsyncIterator[tuple[Inbox, int]]:
    taken = Inbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(taken, hostname="mail.test"), "127.0.0.1", 0)
    yield taken, server.sockets[0].getsockname()[1]
    server.close()


def task(fleet: FleetStore, port: int, now_ms: int = NOW_MS, **settings: Any) -> MailTask:
    mail = MailSettings(
        server="127.0.0.1",
        port=port,
        security="none",
        sender="truck@example.org",
        to=("a@example.org", "b@example.org"),
    )
    return MailTask(fleet, AlertSettings(**settings), mail, password=None, now_ms=lambda: now_ms, console="https://x")


async def raise_alarm(fleet: FleetStore, severity: Any = "warning", text: str = "silent for 3 days") -> None:
    note = AlarmNote(f"truck.{severity}", "ke-arrow", "", severity, text, "call the site")
    await fleet.settle_alarms(f"truck.{severity}", [note], NOW_MS, truck="ke-arrow")


async def test_new_alarms_are_one_mail_and_are_not_mailed_again(fleet: FleetStore, inbox: tuple[Inbox, int]) -> None:
    taken, port = inbox
    await raise_alarm(fleet)
    await raise_alarm(fleet, "critical", "battery at 5 %")
    assert await task(fleet, port).send() == 2
    assert await task(fleet, port).send() == 0
    (mail,) = taken.mails
    assert mail["Subject"] == "[digitruck] 2 alarms, first ke-arrow: battery at 5 %"
    assert mail["To"] == "a@example.org, b@example.org"
    text = mail.get_content()
    assert text.index("CRITICAL") < text.index("WARNING")
    assert "next: call the site" in text
    assert "https://x/alarms" in text


async def test_a_server_that_refuses_is_tried_again(fleet: FleetStore, inbox: tuple[Inbox, int]) -> None:
    taken, port = inbox
    await raise_alarm(fleet)
    taken.refuse = True
    with pytest.raises(OSError, match="storage"):
        await task(fleet, port).send()
    with pytest.raises(OSError):
        await task(fleet, 1).send()
    taken.refuse = False
    assert await task(fleet, port).send() == 1


async def test_warnings_wait_for_the_morning_and_what_is_critical_does_not(
    fleet: FleetStore, inbox: tuple[Inbox, int]
) -> None:
    taken, port = inbox
    night_ms = round(datetime(2026, 11, 30, 20, 0, tzinfo=UTC).timestamp() * 1000)  # 23 h in Nairobi
    quiet = {"quiet_hours": "22-6", "time_zone": "Africa/Nairobi"}
    await raise_alarm(fleet)
    await raise_alarm(fleet, "critical", "it has moved 9 km")
    assert await task(fleet, port, night_ms, **quiet).send() == 1
    assert "moved" in taken.mails[0]["Subject"]
    assert await task(fleet, port, night_ms + 8 * 3_600_000, **quiet).send() == 1


async def test_what_was_seen_or_is_over_is_not_mailed(fleet: FleetStore, inbox: tuple[Inbox, int]) -> None:
    _, port = inbox
    await raise_alarm(fleet)
    (alarm,) = await fleet.alarms()
    await fleet.acknowledge_alarm(alarm.id, NOW_MS, actor="asha")
    await raise_alarm(fleet, "critical")
    await fleet.settle_alarms("truck.critical", [], NOW_MS, truck="ke-arrow")
    assert await task(fleet, port).send() == 0


async def test_a_text_cannot_add_headers(fleet: FleetStore, inbox: tuple[Inbox, int]) -> None:
    taken, port = inbox
    await raise_alarm(fleet, "warning", "x\r\nBcc: evil@example.org\r\n\r\nhello")
    await task(fleet, port).send()
    assert taken.mails[0]["Bcc"] is None


@pytest.mark.parametrize(
    ("hours", "hour", "quiet"),
    [
        ("22-6", 21, False),
        ("22-6", 22, True),
        ("22-6", 5, True),
        ("22-6", 6, False),
        ("1-3", 2, True),
        ("1-3", 3, False),
    ],
)
def test_quiet_hours_may_go_over_midnight(hours: str, hour: int, quiet: bool) -> None:
    now_ms = round(datetime(2026, 11, 30, hour, 30, tzinfo=UTC).timestamp() * 1000)
    assert is_quiet(AlertSettings(quiet_hours=hours), now_ms) is quiet
    assert not is_quiet(AlertSettings(), now_ms)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[alerts]\ntime_zone = "Mars/Olympus"', "alerts.time_zone"),
        ('[alerts]\nquiet_hours = "22-25"', "quiet_hours"),
        ("[alerts]\nsilent_dayz = 3", "silent_dayz"),
        ('[alerts.mail]\nserver = "x"\nsender = "a b"\nto = ["a@b"]', "alerts.mail.sender"),
    ],
)
def test_a_wrong_setting_is_named(text: str, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        parse_config(text, "gateway.toml")
