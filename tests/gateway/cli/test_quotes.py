"""A quote is waited for while the gateway makes the pack that it is about, and is the pack's then."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.cli import quotes
from gateway.contentanswers import Bundle, LinkQuote, Quote, TruckQuote
from protocol.documents import Addressee

LINK = LinkQuote("sat", 2_000, 2_000, 10, "USD", True, True, 7_200, 0.5, None, None, 1_500, 8)
MAKING = TruckQuote("ke-arrow", 9_000, 3, None, True, [LINK])
MADE = TruckQuote("ke-arrow", 9_000, 3, 1_200, False, [LINK])
MATHS = Bundle("maths", "1", 1, "", "static", "", 3, 9_000, 0, "")


class FakeClient:
    """Answers quotes one after another, the last one for ever."""

    def __init__(self, *answers: TruckQuote) -> None:
        self.answers = list(answers)

    def quote(self, *_: object, **__: object) -> Quote:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Quote("maths", "1", [answer], None)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[TruckQuote]]:
    monkeypatch.setattr(quotes, "_ASK_AGAIN_S", 0.0)

    def asked(*answers: TruckQuote, wait_s: float = 60) -> list[TruckQuote]:
        return quotes.quoted(FakeClient(*answers), MATHS, Addressee(("ke-arrow",)), wait_s=wait_s)  # type: ignore[arg-type]

    return asked


def test_a_quote_is_asked_for_again_until_its_pack_is_made(
    ask: Callable[..., list[TruckQuote]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(MAKING, MAKING, MADE) == [MADE]
    assert capsys.readouterr().err.count("is making packs") == 1


def test_who_does_not_wait_gets_the_size_of_the_files_and_is_told(
    ask: Callable[..., list[TruckQuote]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(MAKING, wait_s=0) == [MAKING]
    assert "by the size of the files" in capsys.readouterr().err


def test_a_quote_says_pack_money_time_and_what_a_stick_saves(capsys: pytest.CaptureFixture[str]) -> None:
    quotes.print_quote([MADE, TruckQuote("tz-arrow", 9_000, 3, None, False, [])])
    first, second = capsys.readouterr().out.splitlines()[1:]
    assert " ".join(first.split()) == "ke-arrow 3 9.0 kB 1.2 kB sat 2.0 kB 0.010 USD 2 h yes 0.008 USD"
    assert "at most 9.0 kB" in second
