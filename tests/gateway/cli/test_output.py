"""What is printed: plain when piped, whole, and harmless to the terminal whoever wrote it."""

from __future__ import annotations

import json

import pytest

from gateway.cli.output import (
    CommandError,
    ago,
    confirm,
    instant,
    print_fields,
    print_json,
    print_table,
    printable,
    say,
    size,
)

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\r\nnext\x9b31m"


@pytest.mark.parametrize(
    "printing", [say, lambda text: print_table(["a"], [(text,)], empty=""), lambda text: print_fields([(text, text)])]
)
def test_control_and_direction_characters_never_reach_the_terminal(printing, capsys) -> None:  # type: ignore[no-untyped-def]
    printing(HOSTILE)
    out = capsys.readouterr().out
    assert "owned" in out
    assert all(char.isprintable() or char == "\n" for char in out)


def test_json_is_ascii_and_comes_back_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": HOSTILE, "place": "Moshi é"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"name": HOSTILE, "place": "Moshi é"}


def test_piped_tables_are_plain_and_never_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "")
    print_table(["name", "n"], [("x" * 300, 1), ("y", None)], empty="")
    out = capsys.readouterr().out
    assert "x" * 300 in out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 3


def test_markup_and_emoji_codes_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say("[bold]x[/bold] :truck:")
    assert capsys.readouterr().out == "[bold]x[/bold] :truck:\n"


def test_an_empty_listing_says_so_beside_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a"], [], empty="nothing yet")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "nothing yet\n")


@pytest.mark.parametrize(
    ("count", "shown"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (5_000_000, "5.0 MB"), (10**13, "10000.0 GB")],
)
def test_sizes_are_decimal(count: int | None, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("then", "shown"),
    [
        (None, "never"),
        (10_000_000, "0 s ago"),
        (9_900_000, "100 s ago"),
        (9_000_000, "16 min ago"),
        (0, "2 h ago"),
        (11_000_000, "0 s ago"),
    ],
)
def test_ages_are_short_and_never_negative(then: int | None, shown: str) -> None:
    assert ago(then, 10_000_000) == shown


def test_instants_out_of_range_do_not_fail() -> None:
    assert instant(0) == "1970-01-01 00:00:00Z"
    assert instant(None) == "-"
    assert instant(10**18) == f"{10**18} ms"


def test_nobody_there_means_no() -> None:
    with pytest.raises(CommandError, match="--yes"):
        confirm("Sign?", yes=False)
    confirm("Sign?", yes=True)


def test_printable_keeps_what_people_write() -> None:
    assert printable("Kiswahili é 漢字 ok") == "Kiswahili é 漢字 ok"
    assert printable("a\r\nb\nc\td") == "a b c d"
