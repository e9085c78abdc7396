"""`digitruck ledger reconcile`: a provider's bill held against what was counted, day by day."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from gateway.billfile import BYTES_MAX, BillOptions, read_bill
from gateway.cli.output import CommandError, examples, instant, json_option, note, print_json, print_table, say, size
from gateway.cli.session import gateway
from gateway.moneyanswers import ReconciledBill
from protocol.errors import MalformedError, UntrustedError
from store.zones import offset_of


@click.command(
    "reconcile",
    epilog=examples(
        "digitruck ledger reconcile usage-november.csv --truck ke-arrow --link sat",
        "digitruck ledger reconcile cdr.csv --truck ke-arrow --link lte --zone Africa/Nairobi --where ICCID=8925402...",
        "digitruck ledger reconcile b.csv --truck ke-arrow --link sat --time-column Day --bytes-column Vol --unit MiB",
    ),
)
@click.argument("bill", metavar="BILL.csv", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.option("--truck", required=True, help="Whose bill it is.")
@click.option("--link", required=True, help="Which of its links was billed.")
@click.option("--zone", default="UTC", show_default=True, help="The provider's time zone, e.g. Africa/Nairobi.")
@click.option("--time-column", metavar="NAME", help="The column of dates; found by its name when left out.")
@click.option(
    "--bytes-column", "bytes_columns", multiple=True, metavar="NAME", help="What is billed; repeatable, added up."
)
@click.option("--unit", metavar="UNIT", help="B, kB, MB, GB, KiB, MiB or GiB, where the file does not say.")
@click.option("--decimal", type=click.Choice([".", ","]), help="The decimal sign, where the file leaves it open.")
@click.option("--delimiter", metavar="CHAR", help="What separates columns; found out when left out.")
@click.option("--date-format", metavar="FORMAT", help="As in strptime: %d/%m/%Y %H:%M.")
@click.option("--where", multiple=True, metavar="COLUMN=VALUE", help="Only such rows: a SIM, a device. Repeatable.")
@click.option("--threshold", type=click.FloatRange(0, 1000), default=5.0, show_default=True, help="Percent that alarm.")
@json_option
def ledger_reconcile(
    bill: Path,
    truck: str,
    link: str,
    zone: str,
    time_column: str | None,
    bytes_columns: tuple[str, ...],
    unit: str | None,
    decimal: str | None,
    delimiter: str | None,
    date_format: str | None,
    where: tuple[str, ...],
    threshold: float,
    as_json: bool,
) -> None:
    """Compare a provider's BILL.csv with the ledger of a truck's link, and say by how much they differ.

    The gateway counts what reaches it: bytes that were lost on the way up are on the bill, and not there. A drift of
    more than the threshold is an alarm, until a later bill has less.
    """
    options = BillOptions(
        time_column, bytes_columns, unit, decimal, _one_character(delimiter), date_format, _pairs(where)
    )
    try:
        read = read_bill(_text(bill), offset_of(zone), options)
    except (MalformedError, UntrustedError) as error:
        raise CommandError(f"{bill}: {error}") from error
    note(f"{read.rows} rows: {read.understood}" + (f"; {read.skipped} without a time left out" if read.skipped else ""))
    with gateway() as client:
        lines = [(day.since_s * 1000, day.until_s * 1000, day.bytes) for day in read.days]
        found = client.reconcile(truck, link, lines, threshold_percent=threshold)
    if as_json:
        print_json(found)
        return
    _print(found, threshold)


def _print(found: ReconciledBill, threshold: float) -> None:
    print_table(
        ["day", "billed", "counted", "drift", "%"],
        [
            (
                instant(line.since_ms)[:16],
                line.billed_bytes,
                line.counted_bytes,
                line.billed_bytes - line.counted_bytes,
                _percent(line.billed_bytes, line.counted_bytes),
            )
            for line in found.lines
        ],
        empty="the bill has no days",
    )
    share = "nothing was counted" if found.drift_percent is None else f"{found.drift_percent:+.2f} %"
    sums = f"Billed {size(found.billed_bytes)}, counted {size(found.counted_bytes)}"
    say(f"{sums}: {found.drift_bytes:+d} bytes ({share}).")
    if found.drift_percent is None or abs(found.drift_percent) > threshold:
        say(f"That is more than {threshold:g} %. Next: digitruck ledger {found.truck} --by day,link,cause")


def _percent(billed: int, counted: int) -> str:
    return f"{100 * (billed - counted) / counted:+.1f}" if counted > 0 else "-"


def _text(path: Path) -> str:
    if path.stat().st_size > BYTES_MAX:
        raise CommandError(f"{path} is larger than {BYTES_MAX >> 20} MiB: no bill is")
    data = path.read_bytes()
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        try:
            if encoding == "utf-16" and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
                continue
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise CommandError(f"{path} is not text")


def _one_character(text: str | None) -> str | None:
    if text is None:
        return None
    text = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if len(text) != 1:
        raise click.BadParameter("a delimiter is one character", param_hint="--delimiter")
    return text


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not COLUMN=VALUE", param_hint="--where")
        pairs[name] = value
    return pairs
