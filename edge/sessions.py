"""The page on which a teacher enters a lesson: how many took part, for how long. Numbers only, so that nobody is named.

    GET  /sessions       the form, and what was entered today
    POST /sessions       participants=1..500 & minutes=1..720 [& pin]; one event `class.session`

It is the one thing that the classroom's Wi-Fi may write, so it is bounded: `SESSIONS_A_DAY` a day, one at a time, from
this page alone (a browser says where a form comes from), and with a PIN where `[classroom] teacher_pin` sets one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Final, Protocol
from urllib.parse import urlsplit

from aiohttp import web

from edge.pages import choose_language
from protocol.errors import LocalError, PeerError
from protocol.numbers import Precedence

EVENT: Final = "class.session"
PARTICIPANTS_MAX: Final = 500
MINUTES_MAX: Final = 720
# Two lessons an hour, day and night; more is somebody's script, and each is paid for.
SESSIONS_A_DAY: Final = 48
_DAY_S: Final = 86_400.0
_FIELDS: Final = {"participants": PARTICIPANTS_MAX, "minutes": MINUTES_MAX}

_STYLE: Final = """:root{color-scheme:light dark;font:18px/1.5 system-ui,sans-serif}
body{max-width:32rem;margin:1rem auto;padding:0 1rem}
label{display:block;margin:.8rem 0}input,button{font:inherit;padding:.5rem;width:100%;box-sizing:border-box}
button{margin-top:.6rem}.wrong{color:#b3261e;font-weight:600}.done{font-weight:600}
"""
_POLICY: Final = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class EventSink(Protocol):
    """Where an event goes; returns once it cannot be lost any more."""

    async def event(
        self, name: str, precedence: Precedence, values: tuple[tuple[str, int | bool | str], ...], time_s: float | None
    ) -> int:
        """Take one event; raise `PeerError` or `LocalError` if it is not taken."""


@dataclass(frozen=True, slots=True)
class _Words:
    title: str
    participants: str
    minutes: str
    pin: str
    enter: str
    done: str
    today: str
    wrong: str
    full: str
    wrong_pin: str
    back: str


_WORDS: Final = {
    "en": _Words(
        "A lesson in the classroom",
        "How many took part",
        "How many minutes",
        "Teacher's PIN",
        "Enter it",
        "Entered. Thank you.",
        "Entered in the last day: {lessons} lessons, {participants} participants",
        "Participants are 1 to 500, minutes 1 to 720.",
        "That is enough for a day; ask the office.",
        "The PIN is not right.",
        "Back",
    ),
    "fr": _Words(
        "Une leçon dans la classe",
        "Combien de participants",
        "Combien de minutes",
        "Code de l’enseignant",
        "Enregistrer",
        "Enregistré. Merci.",
        "Enregistré depuis un jour : {lessons} leçons, {participants} participants",
        "Participants de 1 à 500, minutes de 1 à 720.",
        "C’est assez pour un jour ; demandez au bureau.",
        "Le code n’est pas juste.",
        "Retour",
    ),
    "pt": _Words(
        "Uma aula na sala",
        "Quantos participantes",
        "Quantos minutos",
        "PIN do professor",
        "Registar",
        "Registado. Obrigado.",
        "Registado no último dia: {lessons} aulas, {participants} participantes",
        "Participantes de 1 a 500, minutos de 1 a 720.",
        "É suficiente por hoje; pergunte ao escritório.",
        "O PIN não está certo.",
        "Voltar",
    ),
    "sw": _Words(
        "Somo darasani",
        "Washiriki wangapi",
        "Dakika ngapi",
        "PIN ya mwalimu",
        "Andika",
        "Imeandikwa. Asante.",
        "Yaliyoandikwa siku iliyopita: masomo {lessons}, washiriki {participants}",
        "Washiriki 1 hadi 500, dakika 1 hadi 720.",
        "Inatosha kwa leo; uliza ofisi.",
        "PIN si sahihi.",
        "Rudi",
    ),
    "am": _Words(
        "በክፍል ውስጥ ትምህርት",
        "ስንት ተሳታፊዎች",
        "ስንት ደቂቃዎች",
        "የመምህር ፒን",
        "መዝግብ",
        "ተመዝግቧል። እናመሰግናለን።",
        "ባለፈው ቀን፦ {lessons} ትምህርቶች፣ {participants} ተሳታፊዎች",
        "ተሳታፊዎች ከ1 እስከ 500፣ ደቂቃዎች ከ1 እስከ 720።",
        "ለዛሬ ይበቃል፤ ቢሮውን ይጠይቁ።",
        "ፒኑ ትክክል አይደለም።",
        "ተመለስ",
    ),
}


class SessionPages:
    """The form and what it does; what was entered is remembered for a day, for the page."""

    def __init__(
        self, sink: EventSink, *, pin: str | None, monotonic: Callable[[], float], language: str = "en"
    ) -> None:
        self._sink = sink
        self._pin = pin
        self._language = language
        self._monotonic = monotonic
        self._entered: list[tuple[float, int]] = []  # when, participants
        self._tries: list[float] = []  # wrong PINs

    async def show(self, request: web.Request) -> web.Response:
        """Answer GET /sessions."""
        return self._page(request, 200)

    async def enter(self, request: web.Request) -> web.Response:
        """Answer POST /sessions."""
        words = _WORDS[self._language_of(request)]
        if urlsplit(request.headers.get("Origin", "")).netloc != request.host:
            return self._page(request, 403, problem="Origin?")
        fields = await request.post()
        if not self._may(fields.get("pin")):
            return self._page(request, 403, problem=words.wrong_pin)
        numbers = {name: _number(fields.get(name), most) for name, most in _FIELDS.items()}
        if None in numbers.values():
            return self._page(request, 400, problem=words.wrong)
        self._forget()
        if len(self._entered) >= SESSIONS_A_DAY:
            return self._page(request, 429, problem=words.full)
        participants, minutes = numbers["participants"] or 0, numbers["minutes"] or 0
        values = (("participants", participants), ("minutes", minutes))
        try:
            await self._sink.event(EVENT, Precedence.NORMAL, values, None)
        except (PeerError, LocalError) as error:
            return self._page(request, 503, problem=str(error))
        self._entered.append((self._monotonic(), participants))
        return self._page(request, 200, done=True)

    def _may(self, given: object) -> bool:
        """Return whether the PIN is right; after five wrong ones in a minute none is."""
        if self._pin is None:
            return True
        now_s = self._monotonic()
        self._tries = [each for each in self._tries if now_s - each < 60.0]
        right = isinstance(given, str) and hmac.compare_digest(given.encode(), self._pin.encode())
        if right and len(self._tries) < 5:
            return True
        self._tries = [*self._tries, now_s][-64:]
        return False

    def _language_of(self, request: web.Request) -> str:
        return choose_language(request.headers.get("Accept-Language"), self._language)

    def _forget(self) -> None:
        now_s = self._monotonic()
        self._entered = [each for each in self._entered if now_s - each[0] < _DAY_S]

    def _page(self, request: web.Request, status: int, *, problem: str = "", done: bool = False) -> web.Response:
        self._forget()
        language = self._language_of(request)
        words = _WORDS[language]
        today = words.today.format(
            lessons=len(self._entered), participants=sum(participants for _, participants in self._entered)
        )
        inputs = "".join(
            f'<label>{escape(text)}<input name="{name}" type="number" inputmode="numeric" min="1" max="{most}" '
            "required></label>"
            for (name, most), text in zip(_FIELDS.items(), (words.participants, words.minutes), strict=True)
        )
        if self._pin is not None:
            inputs += (
                f'<label>{escape(words.pin)}<input name="pin" type="password" inputmode="numeric" required></label>'
            )
        told = f'<p class="wrong" role="alert">{escape(problem)}</p>' if problem else ""
        told += f'<p class="done" role="status">{escape(words.done)}</p>' if done else ""
        text = (
            f'<!DOCTYPE html><html lang="{language}"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{escape(words.title)}</title><style>{_STYLE}</style></head><body><main>"
            f"<h1>{escape(words.title)}</h1>"
            f'{told}<form method="post" action="/sessions">{inputs}<button>{escape(words.enter)}</button></form>'
            f'<p>{escape(today)}</p><p><a href="/">{escape(words.back)}</a></p></main></body></html>\n'
        )
        headers = {
            "Content-Security-Policy": _POLICY,
            "Cache-Control": "no-store",
            "Vary": "Accept-Language",
            "X-Content-Type-Options": "nosniff",
        }
        return web.Response(text=text, status=status, content_type="text/html", charset="utf-8", headers=headers)


def _number(value: object, most: int) -> int | None:
    if not isinstance(value, str) or not value.isascii() or not value.isdecimal() or len(value) > 4:
        return None
    number = int(value)
    return number if 1 <= number <= most else None
