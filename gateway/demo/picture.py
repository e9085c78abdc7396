"""What the demo shows: one snapshot of the fleet as a rich table, or as a few plain lines when nobody watches live.

A snapshot is built from what the gateway's API and the trucks' own status pages say; nothing here asks or decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_EVENTS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class LinkPicture:
    """One link of one truck: what the truck paid for on it this month (bytes, thousandths of a currency)."""

    name: str
    usable: bool | None
    rtt_s: float | None
    spent_bytes: int
    spent_milli: float
    currency: str


@dataclass(frozen=True, slots=True)
class VersionPicture:
    """What a truck should have and has; `share` is how much of a download has arrived, None when none is under way."""

    name: str
    desired: str | None
    active: str | None
    share: float | None = None

    def text(self) -> str:
        """Return it in one word or two."""
        if self.desired is None or self.desired == self.active:
            return f"{self.name} {self.active or '-'}"
        progress = f" {self.share:.0%}" if self.share is not None else ""
        return f"{self.name} {self.active or '-'} -> {self.desired}{progress}"


@dataclass(frozen=True, slots=True)
class TruckPicture:
    """One truck: rows it recorded, rows and batches at the gateway, parcels still queued on it."""

    name: str
    place: str
    rows_recorded: int
    rows_arrived: int
    batches: int
    queued: int
    links: tuple[LinkPicture, ...]
    versions: tuple[VersionPicture, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """The whole demo at one moment."""

    passed_s: float
    gateway_up: bool
    trucks: tuple[TruckPicture, ...]
    events: Sequence[str]


def render(picture: Picture, *, title: str, hint: str) -> Group:
    """Return the live view for a terminal."""
    table = Table(title=title, title_justify="left", expand=True, pad_edge=False)
    for head, side in (
        ("truck", "left"),
        ("rows here / there", "right"),
        ("queued", "right"),
        ("link", "left"),
        ("state", "left"),
        ("RTT", "right"),
        ("bytes", "right"),
        ("money", "right"),
        ("config and content", "left"),
    ):
        table.add_column(head, justify="right" if side == "right" else "left", no_wrap=head != "config and content")
    for truck in picture.trucks:
        states = [_state(each) for each in truck.links]
        table.add_row(
            f"[bold]{truck.name}[/bold]\n[dim]{truck.place}[/dim]",
            f"{truck.rows_recorded} / {truck.rows_arrived}",
            str(truck.queued),
            "\n".join(each.name for each in truck.links),
            Text("\n").join(states),
            "\n".join(_rtt(each.rtt_s) for each in truck.links),
            "\n".join(f"{each.spent_bytes:,}" for each in truck.links),
            "\n".join(_money(each.spent_milli, each.currency) for each in truck.links),
            "\n".join(each.text() for each in truck.versions) or "-",
            end_section=True,
        )
    up = "[green]up[/green]" if picture.gateway_up else "[bold red]down[/bold red]"
    head = f"{picture.passed_s:5.0f} s   gateway {up}   {hint}"
    return Group(head, table, Panel("\n".join(picture.events[-_EVENTS_SHOWN:]), title="events", title_align="left"))


def plain(picture: Picture) -> list[str]:
    """Return the same in plain lines, one a truck."""
    lines = []
    for truck in picture.trucks:
        links = ", ".join(
            f"{each.name} {_state(each).plain} {_rtt(each.rtt_s)}, {each.spent_bytes:,} B, "
            f"{_money(each.spent_milli, each.currency)}"
            for each in truck.links
        )
        versions = ", ".join(each.text() for each in truck.versions) or "nothing yet"
        lines.append(
            f"{picture.passed_s:5.1f} s  {truck.name:<18} rows {truck.rows_arrived} of {truck.rows_recorded}, "
            f"queued {truck.queued} | {links} | {versions}"
        )
    return lines


def _state(link: LinkPicture) -> Text:
    word, colour = {True: ("up", "green"), False: ("down", "red"), None: ("idle", "dim")}[link.usable]
    return Text(word, style=colour)


def _rtt(rtt_s: float | None) -> str:
    return "-" if rtt_s is None else f"{rtt_s * 1000:.0f} ms"


def _money(milli: float, currency: str) -> str:
    return f"{milli / 1000:.4f} {currency}"
