"""Every text of the pages has its French, with the same values; nothing is in the catalogue that no page says."""

from __future__ import annotations

import re
import string
from importlib.resources import files

import pytest

from gateway.console import words

TEMPLATES = files("gateway.console").joinpath("templates")
TEXTS = sorted(
    {
        text
        for each in TEMPLATES.iterdir()
        for text in re.findall(r"_\('((?:[^'\\]|\\.)+)'", each.read_text(encoding="utf-8"))
    }
)


@pytest.mark.parametrize("language", [each for each in words.NAMES if each != "en"])
def test_every_text_of_the_pages_is_translated(language: str) -> None:
    assert len(TEXTS) > 150
    assert [text for text in TEXTS if text not in words.catalogue(language)] == []


@pytest.mark.parametrize("language", [each for each in words.NAMES if each != "en"])
def test_a_translation_has_the_same_values(language: str) -> None:
    def values(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    wrong = [english for english, other in words.catalogue(language).items() if values(english) != values(other)]
    assert wrong == []


def test_what_a_catalogue_lacks_is_said_in_english() -> None:
    assert words.translate("fr", "No such text, {name}", name="x") == "No such text, x"
