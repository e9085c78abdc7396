"""The impact report as files: a page, a PDF and a table. What they say is the same `Impact`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Final

import jinja2
from fpdf import FPDF

from gateway.impact.figures import FEW, Figures, Impact

TITLE: Final = "Digitruck impact report"
NOTES: Final = (
    "Sessions, participants and minutes were entered by teachers in the classroom; a truck adds them up and sends no"
    f" name. Lines of fewer than {FEW} participants are not told.",
    "Energy, workstations and hours heard count only hours of which telemetry is here: what is missing is not guessed."
    " Coverage is the share of all values due that are here.",
    "Data is what this gateway counted on the links, headers and retransmissions included; money is what it cost by the"
    " tariffs in force then.",
)
_HEADERS: Final = (
    "name", "trucks", "sessions", "participants", "learner hours", "workstation hours", "hours heard", "hours due",
    "coverage %", "solar kWh", "load kWh", "data up MB", "data down MB", "money", "bundles", "content MB",
)  # fmt: skip


def cells(each: Figures) -> list[str]:
    """Return one line as text, in the order of the headers."""
    return [
        each.name,
        str(each.trucks),
        str(each.sessions),
        "few" if each.participants is None else str(each.participants),
        "few" if each.learner_hours is None else f"{each.learner_hours:.1f}",
        f"{each.workstation_hours:.1f}",
        str(each.heard_hours),
        str(each.due_hours),
        "" if each.coverage_percent is None else f"{each.coverage_percent:.1f}",
        f"{each.solar_kwh:.1f}",
        f"{each.load_kwh:.1f}",
        f"{each.bytes_up / 1e6:.2f}",
        f"{each.bytes_down / 1e6:.2f}",
        " ".join(f"{milli / 1000:.2f} {currency}" for currency, milli in sorted(each.money_milli.items())),
        str(each.bundles),
        f"{each.bundle_bytes / 1e6:.1f}",
    ]


def to_csv(impact: Impact) -> bytes:
    """Return lines, months and the sum as CSV (RFC 4180), a first column saying which it is."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["of", *_HEADERS])
    for kind, lines in ((impact.by, impact.lines), ("month", impact.months), ("all", [impact.total])):
        for each in lines:
            row = cells(each)
            # A spreadsheet takes a cell that begins like a formula for one.
            writer.writerow([kind, f"'{row[0]}" if row[0][:1] in "=+-@" else row[0], *row[1:]])
    return text.getvalue().encode()


def to_html(impact: Impact) -> bytes:
    """Return a page that needs nothing else: printed or mailed as it is."""
    return (
        _page()
        .render(
            title=TITLE,
            impact=impact,
            headers=_HEADERS,
            cells=cells,
            notes=NOTES,
            day=_day,
            bars=bars(impact.months),
        )
        .encode()
    )


def to_pdf(impact: Impact) -> bytes:
    """Return an A4 document in landscape."""
    pdf = FPDF(orientation="landscape", format="A4")
    pdf.set_title(TITLE)
    pdf.set_creation_date(datetime.fromtimestamp(impact.made_ms / 1000, UTC))
    pdf.set_auto_page_break(True, margin=12)
    pdf.add_page()
    pdf.set_font("helvetica", style="B", size=18)
    pdf.cell(text=TITLE, new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("helvetica", size=10)
    period = f"{_day(impact.since_ms)} to {_day(impact.until_ms)}, {impact.total.trucks} trucks"
    pdf.cell(text=_latin(period), new_x="LMARGIN", new_y="NEXT")
    pdf.ln(4)
    _chart(pdf, bars(impact.months))
    for heading, lines in ((f"By {impact.by}", [*impact.lines, impact.total]), ("By month", impact.months)):
        pdf.set_font("helvetica", style="B", size=12)
        pdf.cell(text=heading, new_x="LMARGIN", new_y="NEXT")
        pdf.set_font("helvetica", size=7)
        with pdf.table(first_row_as_headings=True, col_widths=(24, *([12] * (len(_HEADERS) - 1)))) as table:
            for line in [_HEADERS, *(cells(each) for each in lines)]:
                row = table.row()
                for cell in line:
                    row.cell(_latin(cell))
        pdf.ln(4)
    pdf.set_font("helvetica", size=8)
    for note in NOTES:
        pdf.multi_cell(w=0, text=note, new_x="LMARGIN", new_y="NEXT")
    return bytes(pdf.output())


def bars(months: Sequence[Figures]) -> list[tuple[str, float, float]]:
    """Return (month, learner hours, share of the highest) for a chart."""
    hours = [(each.name, each.learner_hours or 0.0) for each in months]
    most = max((value for _, value in hours), default=0.0) or 1.0
    return [(name, value, value / most) for name, value in hours]


def _chart(pdf: FPDF, found: Sequence[tuple[str, float, float]]) -> None:
    pdf.set_font("helvetica", style="B", size=12)
    pdf.cell(text="Learner hours by month", new_x="LMARGIN", new_y="NEXT")
    top, height, width = pdf.get_y() + 2, 34.0, min(18.0, 240.0 / max(1, len(found)))
    pdf.set_font("helvetica", size=7)
    pdf.set_fill_color(10, 125, 85)
    for at, (name, value, share) in enumerate(found):
        left = pdf.l_margin + at * width
        pdf.rect(left, top + height * (1 - share), width * 0.7, max(0.2, height * share), style="F")
        pdf.text(left, top + height + 4, name)
        pdf.text(left, top + height * (1 - share) - 1, f"{value:.0f}")
    pdf.set_y(top + height + 8)


def _day(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d")


def _latin(text: str) -> str:
    # The fonts that every reader has know Latin-1 only.
    return text.encode("latin-1", "replace").decode("latin-1")


@cache
def _page() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gateway.impact"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("impact.html")
