"""Alarms by e-mail: one mail for all that is new, warnings not in quiet hours, and again until the server takes it."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import structlog

from gateway.config import AlertSettings, MailSettings
from store.fleet.alarms import AlarmRecord
from store.fleet.fleet import FleetStore

log = structlog.get_logger("gateway.mail")

_PAUSE_S: Final = 30.0
_PAUSE_S_MAX: Final = 3_600.0
_TIMEOUT_S: Final = 30.0
_SUBJECT_CHARS: Final = 120


class MailTask:
    """Mails what nobody was told yet."""

    def __init__(
        self,
        fleet: FleetStore,
        settings: AlertSettings,
        mail: MailSettings,
        *,
        password: str | None,
        now_ms: Callable[[], int],
        console: str = "",
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._mail = mail
        self._password = password
        self._now_ms = now_ms
        self._console = console

    async def run(self) -> None:
        """Mail for ever, until cancelled; a server that is away is tried later and later."""
        pause_s = _PAUSE_S
        while True:
            try:
                await self.send()
                pause_s = _PAUSE_S
            except (OSError, smtplib.SMTPException) as error:
                log.warning("mail.failed", server=self._mail.server, error=str(error)[:200])
                pause_s = min(_PAUSE_S_MAX, pause_s * 2)
            await asyncio.sleep(pause_s)

    async def send(self) -> int:
        """Send one mail about all that is due; return how many alarms were in it. Raises what SMTP raises."""
        now_ms = self._now_ms()
        quiet = is_quiet(self._settings, now_ms)
        due = [each for each in await self._fleet.alarms_to_mail() if each.severity == "critical" or not quiet]
        if due:
            await asyncio.to_thread(self._send, compose(due, self._mail, now_ms, self._console))
            # After it was taken: twice is better than never.
            await self._fleet.alarms_mailed([each.id for each in due], now_ms)
            log.info("mail.sent", alarms=len(due), to=len(self._mail.to))
        return len(due)

    def _send(self, message: EmailMessage) -> None:
        mail = self._mail
        if mail.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                mail.server, mail.port, timeout=_TIMEOUT_S, context=ssl.create_default_context()
            )
        else:
            server = smtplib.SMTP(mail.server, mail.port, timeout=_TIMEOUT_S)
        with server:
            if mail.security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if mail.user and self._password:
                server.login(mail.user, self._password)
            server.send_message(message)


def is_quiet(settings: AlertSettings, now_ms: int) -> bool:
    """Return whether it is within the quiet hours (`22-6`), in the settings' time zone."""
    if settings.quiet_hours is None:
        return False
    first, _, last = settings.quiet_hours.partition("-")
    hour = datetime.fromtimestamp(now_ms / 1000, ZoneInfo(settings.time_zone)).hour
    begin, end = int(first), int(last)
    return begin <= hour < end if begin <= end else hour >= begin or hour < end


def compose(due: Sequence[AlarmRecord], mail: MailSettings, now_ms: int, console: str) -> EmailMessage:
    """Return the mail about some alarms, the worst first."""
    ordered = sorted(due, key=lambda each: (each.severity != "critical", each.truck, each.id))
    message = EmailMessage()
    first = ordered[0]
    subject = f"[digitruck] {first.truck or 'fleet'}: {first.text}"
    if len(ordered) > 1:
        subject = f"[digitruck] {len(ordered)} alarms, first {first.truck or 'fleet'}: {first.text}"
    message["Subject"] = "".join(char if char.isprintable() else " " for char in subject)[:_SUBJECT_CHARS]
    message["From"] = mail.sender
    message["To"] = ", ".join(mail.to)
    message["Date"] = datetime.fromtimestamp(now_ms / 1000, UTC)
    message["Auto-Submitted"] = "auto-generated"
    lines = []
    for each in ordered:
        since = datetime.fromtimestamp(each.since_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
        lines += [
            f"{each.severity.upper()}  {each.truck or 'fleet'}  {each.rule} {each.subject}".rstrip(),
            f"  {each.text}",
            f"  next: {each.next_step}",
            f"  since {since}; seen: digitruck alarm ack {each.id}",
            "",
        ]
    lines.append(f"All alarms: {console}/alarms" if console else "All alarms: digitruck alarm list")
    message.set_content("\n".join(lines) + "\n")
    return message


def read_password(path: Path) -> str:
    """Return the password in a file's first line."""
    return path.read_text(encoding="utf-8").partition("\n")[0].strip()
