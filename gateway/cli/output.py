"""What a person or a script gets to see: tables, JSON, and one-line errors.

Colour and width follow the terminal; piped output is plain and never cut. Text that came from a truck or the gateway
is never trusted with the terminal: control and direction characters are written out before they are printed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from protocol.errors import LocalError

_PIPED_WIDTH = 10_000
_NO_VALUE = "-"
_F = TypeVar("_F", bound=Callable[..., Any])


class CommandError(LocalError):
    """Something that a command cannot do as asked; the message is one line that ends in what to do next."""


def examples(*lines: str) -> str:
    """Return the epilog of a command: every help text shows how the command is used."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def json_option(command: _F) -> _F:
    """Add `--json` to a listing; the parameter is `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(command)


def terminal() -> Console:
    """Return the console on standard output, as it is now."""
    piped = not sys.stdout.isatty()
    return Console(file=sys.stdout, highlight=False, emoji=False, markup=False, width=_PIPED_WIDTH if piped else None)


def say(line: str = "") -> None:
    """Print a line of a command's result."""
    terminal().print(Text(printable(line)), soft_wrap=True)


def note(line: str) -> None:
    """Print a line about what is going on, to standard error, so that results can be piped."""
    click.echo(printable(line), err=True)


def print_json(value: object) -> None:
    """Print a value (structs, sequences, mappings) as indented JSON."""
    sys.stdout.write(encode_json(value).decode())


def encode_json(value: object) -> bytes:
    """Return a value (structs, sequences, mappings) as indented JSON, a line end at its end."""
    # ASCII only: no control or direction character that a truck sent reaches the terminal unescaped.
    return (json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=True) + "\n").encode()


def print_json_line(value: object) -> None:
    """Print a value as JSON on one line."""
    sys.stdout.write(json.dumps(msgspec.to_builtins(value), ensure_ascii=True) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print rows under their column titles; numbers stand right. `empty` is said when there are none."""
    cells = [list(row) for row in rows]
    if not cells:
        note(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, title in enumerate(columns):
        numbers = all(row[index] is None or isinstance(row[index], int | float) for row in cells)
        table.add_column(title, justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(printable(_cell(value))) for value in row))
    terminal().print(table)


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Print one thing's fields, a line each."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(Text(printable(name)), Text(printable(_cell(value))))
    terminal().print(table)


def printable(text: str) -> str:
    """Return text that can do nothing to a terminal but stand there; newlines become spaces."""
    flat = text.replace("\r\n", " ").replace("\n", " ").replace("\t", " ")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in flat)


def instant(time_ms: int | None) -> str:
    """Return a time (Unix ms) as people read it, in UTC; `-` for None."""
    if time_ms is None:
        return _NO_VALUE
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms"


def ago(time_ms: int | None, now_ms: int) -> str:
    """Return how long ago a time (Unix ms) was; `never` for None."""
    if time_ms is None:
        return "never"
    seconds = max(0, now_ms - time_ms) // 1000
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds // length_s} {unit} ago"
    return f"{seconds} s ago"


def size(count: int | None) -> str:
    """Return a number of bytes as people read it (kB = 1000)."""
    if count is None:
        return _NO_VALUE
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is signed; raise `CommandError` where nobody can answer and `--yes` was not given."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError("nobody is here to confirm this: read it, then run the command again with --yes")
    if not click.confirm(question, default=False, err=True):
        raise CommandError("nothing was signed and nothing was sent")


def _cell(value: object) -> str:
    match value:
        case None:
            return _NO_VALUE
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case list() | tuple():
            return ", ".join(_cell(item) for item in value) or _NO_VALUE
        case dict():
            return " ".join(f"{name}={_cell(item)}" for name, item in value.items()) or _NO_VALUE
    return str(value)
