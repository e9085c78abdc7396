"""The console's languages: English is in the templates, another language is a catalogue of it (`locale/xx.toml`).

A catalogue maps the English text to the other one; a text that it lacks is shown in English. `{name}` stands for a
value in both.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from aiohttp import web

LANGUAGE_COOKIE = "digitruck-language"
ENGLISH = "en"
NAMES = {"en": "English", "fr": "Français"}


@cache
def catalogue(language: str) -> dict[str, str]:
    """Return a language's texts by their English ones; none for English."""
    if language == ENGLISH:
        return {}
    text = files("gateway.console").joinpath("locale", f"{language}.toml").read_text(encoding="utf-8")
    return {english: str(translated) for english, translated in tomllib.loads(text).items()}


def translate(language: str, text: str, **values: object) -> str:
    """Return a text in a language, its values filled in."""
    found = catalogue(language).get(text, text)
    return found.format(**values) if values else found


def language_of(request: web.Request) -> str:
    """Return the language that a reader chose, or else prefers by `Accept-Language` (RFC 9110 section 12.5.4)."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    if chosen in NAMES:
        return chosen
    wanted: list[tuple[float, str]] = []
    for part in request.headers.get("Accept-Language", "")[:512].split(","):
        tag, _, parameter = part.strip().partition(";")
        try:
            quality = float(parameter.strip().removeprefix("q=") or 1)
        except ValueError:
            quality = 0.0
        wanted.append((-quality, tag.partition("-")[0].lower()))
    # Sorting is stable: of equals, the first that was named.
    known = (tag for quality, tag in sorted(wanted, key=lambda each: each[0]) if tag in NAMES and quality < 0)
    return next(known, ENGLISH)
