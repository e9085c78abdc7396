"""What a truck knows of itself, and how that reads as plain text (`digitruck-edge status`).

All "when" is an age in seconds, so that a truck that does not know the time of day still tells it. The same structs
are the JSON of `GET /v1/status`. Deliberately absent: how any of it is found out, and colours; it works over a serial
console and offline.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final

from edge.clock import ClockState

_PRECEDENCES: Final = ("flash", "priority", "normal", "bulk")
_SIZES: Final = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """What of one precedence waits to go up; `oldest_age_s` is None if nothing does."""

    precedence: str
    parcels: int
    bytes: int
    oldest_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class WaitStatus:
    """One precedence that does not go over a link now: why (`protocol.refusals.Reason`), in words, and until when."""

    precedence: str
    reason: str
    text: str
    until_s: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """The interface that a link is bound to, as the system has it; `state` is empty while it can carry."""

    interface: str
    kind: str = ""
    state: str = ""
    mtu_bytes: int = 0
    addresses: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """One uplink in this budget period. None: not known (`usable`), no cap (the budget), never (the last contact).

    Bytes are billed ones. `left_normal_bytes` is what of `left_bytes` normal may use now, by share and pace. `waits`
    has the precedences that would not go now, `period_ends_s` when a new budget begins (Unix; None: the clock is
    unknown). `left_bytes` is less than the budget minus what is spent while some of it is reserved. `rtt_s` is the
    smoothed round trip, `loss` the share of recent requests without an answer; `note` says what keeps the link from
    carrying all. `rate_bps` is what the last download found the link to carry, `falls` how often it fell lately, less
    with time.
    """

    name: str
    usable: bool | None
    spent_bytes: int
    budget_bytes: int | None = None
    left_bytes: int | None = None
    last_contact_age_s: float | None = None
    rtt_s: float | None = None
    loss: float | None = None
    note: str = ""
    tariff: str = ""
    spent_money: str = ""
    left_normal_bytes: int | None = None
    period_ends_s: int | None = None
    waits: tuple[WaitStatus, ...] = ()
    device: DeviceStatus | None = None
    rate_bps: int | None = None
    falls: float = 0.0


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One thing that comes down: `config` or a bundle's name, the version it should have and the one that is active."""

    name: str
    desired: str | None
    active: str | None
    received_bytes: int = 0
    wanted_bytes: int = 0

    @property
    def current(self) -> bool:
        """Return whether what is active is what should be; True where nothing is desired."""
        return self.desired is None or self.desired == self.active


@dataclass(frozen=True, slots=True)
class ClockStatus:
    """How far wall time is believed, and the Unix time if it is."""

    state: ClockState
    wall_s: float | None = None


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """Bytes of the queues' and the content's share, and what the disk has free."""

    state_bytes: int
    state_bytes_max: int
    content_bytes: int
    content_bytes_max: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class CollectorStatus:
    """How one source of telemetry does; `error` is empty while it is well."""

    name: str
    rows: int
    last_row_age_s: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class EdgeStatus:
    """Everything a person at the truck may ask; `last_contact_age_s` is over any link, None if never."""

    truck: str
    queues: tuple[QueueStatus, ...]
    links: tuple[LinkStatus, ...]
    versions: tuple[VersionStatus, ...]
    clock: ClockStatus
    disk: DiskStatus
    last_contact_age_s: float | None = None
    collectors: tuple[CollectorStatus, ...] = ()
    expired: tuple[str, ...] = ()  # of root, delegation, desired: while one is, nothing new is believed


def render_status(status: EdgeStatus) -> str:
    """Return plain text of at most about 80 columns, in the order in which a person at the truck asks."""
    waiting = sum(queue.parcels for queue in status.queues)
    lines = [
        f"truck {status.truck}",
        f"last contact  {_ago(status.last_contact_age_s)}",
        f"clock         {_clock(status.clock)}",
        f"disk          queues {_share(status.disk.state_bytes, status.disk.state_bytes_max)}, "
        f"content {_share(status.disk.content_bytes, status.disk.content_bytes_max)}, "
        f"free {format_bytes(status.disk.free_bytes)}",
        *([f"trust         expired: {', '.join(status.expired)}; tell an operator"] if status.expired else []),
        "",
    ]
    lines += _table(
        ("waiting", "parcels", "size", "oldest"),
        [
            (queue.precedence, str(queue.parcels), format_bytes(queue.bytes), _age(queue.oldest_age_s))
            for queue in status.queues
            if queue.parcels
        ],
        empty="" if waiting else "nothing waits to be sent",
    )
    lines += _table(
        ("link", "state", "spent", "budget", "left", "last contact"),
        [
            (
                link.name,
                {True: "usable", False: "down", None: "unknown"}[link.usable],
                format_bytes(link.spent_bytes),
                "no cap" if link.budget_bytes is None else format_bytes(link.budget_bytes),
                "-" if link.left_bytes is None else format_bytes(link.left_bytes),
                _ago(link.last_contact_age_s),
            )
            for link in status.links
        ],
        empty="no links are configured",
    )
    present = {queue.precedence for queue in status.queues if queue.parcels}
    if any(not version.current for version in status.versions):
        present.add("bulk")
    notes = [f"{link.name}: {link.note}" for link in status.links if link.note and not link.waits]
    notes += [line for link in status.links for line in why_lines(link, present)]
    if notes:
        lines[-1:] = [*notes, ""]
    lines += _table(
        ("version of", "active", "desired", ""),
        [
            (version.name, version.active or "-", version.desired or "-", _progress(version))
            for version in status.versions
        ],
        empty="no configuration or content has been received",
    )
    lines += _table(
        ("collector", "rows", "last row", ""),
        [(one.name, str(one.rows), _ago(one.last_row_age_s), one.error) for one in status.collectors],
        empty="no collectors are running",
    )
    return "\n".join(lines).rstrip() + "\n"


def render_links(links: Sequence[LinkStatus]) -> str:
    """Return plain text of at most about 120 columns: a few lines a link, all that may keep it from carrying."""
    lines: list[str] = []
    for link in links:
        usable = {True: "works", False: "does not answer", None: "not tried yet"}[link.usable]
        rtt = "" if link.rtt_s is None else f", round trip {link.rtt_s * 1000:.0f} ms"
        loss = "" if link.loss is None else f", loss {link.loss:.0%}"
        age = "never heard" if link.last_contact_age_s is None else f"heard {_ago(link.last_contact_age_s)}"
        rate = "" if link.rate_bps is None else f", carried {link.rate_bps / 1000:,.0f} kbit/s"
        falls = f", fell {link.falls:.0f} times lately" if link.falls >= 1.5 else ""
        lines.append(f"{link.name}: {usable}{rtt}{loss}{rate}{falls}, {age}")
        if link.device is not None:
            lines.append(f"  device  {_device(link.device)}")
        left = "no cap" if link.left_bytes is None else f"{format_bytes(link.left_bytes)} left"
        if link.left_bytes is not None and link.left_normal_bytes is not None:
            left += f", {format_bytes(link.left_normal_bytes)} of it for normal now"
        lines.append(f"  tariff  {link.tariff or '-'}")
        lines.append(f"  spent   {format_bytes(link.spent_bytes)}, {link.spent_money or '-'}; {left}")
        lines += [f"  {each.partition(': ')[2]}" for each in why_lines(link, _PRECEDENCES)]
    return "\n".join(lines) + "\n"


def _device(device: DeviceStatus) -> str:
    parts = [f"{device.interface} ({device.kind})" if device.kind else device.interface, device.state or "can carry"]
    parts += [f"MTU {device.mtu_bytes}"] * bool(device.mtu_bytes)
    return ", ".join([*parts, *device.addresses, *([device.note] if device.note else [])])


def why_lines(link: LinkStatus, present: Container[str]) -> list[str]:
    """Return a line for each reason why something of what is `present` does not go over a link now."""
    found: dict[str, list[str]] = {}
    for wait in link.waits:
        if wait.precedence in present:
            found.setdefault(wait.text, []).append(wait.precedence)
    return [f"{link.name}: {' and '.join(who)} wait{'s' * (len(who) == 1)}: {text}" for text, who in found.items()]


def format_bytes(count: int) -> str:
    """Return a byte count in decimal units, as tariffs have them: 999 B, 1.5 kB, 12 MB."""
    value = float(count)
    for size in _SIZES:
        # What would round to 1000 belongs to the next size.
        if abs(value) < 999.5 or size == _SIZES[-1]:
            break
        value /= 1000
    return f"{count} B" if size == "B" else f"{value:.1f} {size}" if abs(value) < 9.95 else f"{value:.0f} {size}"


def format_age(age_s: float) -> str:
    """Return an age in the one unit that matters: 40 s, 12 min, 5 h, 3 days."""
    for limit_s, unit_s, unit in ((120.0, 1, "s"), (7_200.0, 60, "min"), (172_800.0, 3_600, "h")):
        if age_s < limit_s:
            return f"{max(0, int(age_s // unit_s))} {unit}"
    return f"{int(age_s // 86_400)} days"


def _age(age_s: float | None) -> str:
    return "-" if age_s is None else format_age(age_s)


def _ago(age_s: float | None) -> str:
    return "never" if age_s is None else f"{format_age(age_s)} ago"


def _share(used_bytes: int, max_bytes: int) -> str:
    return f"{format_bytes(used_bytes)} of {format_bytes(max_bytes)}"


def _clock(clock: ClockStatus) -> str:
    return {
        ClockState.SYNCED: "synced",
        ClockState.FLOOR: "not synced since start; only a lower bound of the time is known",
        ClockState.UNSET: "not set; times are repaired when the gateway tells it",
    }[clock.state]


def _progress(version: VersionStatus) -> str:
    if version.current:
        return ""
    if version.wanted_bytes <= 0:
        return "wanted"
    # Rounded down: it is not complete before it is.
    percent = min(100, 100 * version.received_bytes // version.wanted_bytes)
    return f"{percent} % of {format_bytes(version.wanted_bytes)}"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]], *, empty: str) -> list[str]:
    if not rows:
        return [empty, ""] if empty else []
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    text = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [heads, *rows]
    ]
    return [*text, ""]
