"""What a truck's databases say while its daemon is stopped: read only, nothing is created or changed."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge.clock import ClockState
from edge.config import EdgeConfig
from edge.identity import load_enrolment
from edge.installer import Installer
from edge.status import ClockStatus, DiskStatus, EdgeStatus, LinkStatus, QueueStatus, VersionStatus
from protocol.errors import LocalError
from protocol.numbers import Precedence
from store.database import open_reader
from store.parcels import ParcelState

_MB = 1_000_000


def offline_status(config: EdgeConfig, data: Path) -> EdgeStatus:
    """Return what can be known without the daemon; raise `LocalError` with the next step."""
    enrolment = load_enrolment(data / "identity")
    if not (data / "state.db").exists():
        raise LocalError(f"{data} holds no queue yet: start `digitruck-edge run`")
    state = open_reader(data / "state.db")
    sql = "SELECT precedence, count(*), sum(length(sealed)) FROM parcels WHERE state = ? GROUP BY 1 ORDER BY 1"
    queues = tuple(
        QueueStatus(Precedence(precedence).name.lower(), parcels, size)
        for precedence, parcels, size in state.execute(sql, [int(ParcelState.QUEUED)])
    )
    installed = Installer(data / "content", bytes_max=config.content_mb_max * _MB).installed()
    return EdgeStatus(
        truck=enrolment.truck,
        queues=queues,
        links=tuple(_link(link.name, link.month_bytes_max, data) for link in config.link),
        versions=tuple(VersionStatus(each.name, None, each.manifest.label) for each in installed if each.active),
        clock=ClockStatus(ClockState.UNSET),
        disk=DiskStatus(
            state_bytes=(data / "state.db").stat().st_size,
            state_bytes_max=config.state_mb_max * _MB,
            content_bytes=sum(file.size for each in installed for file in each.manifest.files),
            content_bytes_max=config.content_mb_max * _MB,
            free_bytes=shutil.disk_usage(data).free,
        ),
    )


def _link(name: str, budget: int | None, data: Path) -> LinkStatus:
    spent = 0
    if (data / "links.db").exists():
        links = open_reader(data / "links.db")
        opened = links.execute("SELECT value FROM settings WHERE name = ?", [f"ledger-period:{name}"]).fetchone()
        sql = (
            "SELECT flash + other + held_flash + held_other FROM ledger_accounts WHERE link = ? "
            "ORDER BY period = ? DESC, period DESC LIMIT 1"
        )
        # The numbers of periods of another kind, from before the tariff changed, may be higher.
        row = links.execute(sql, [name, int.from_bytes(opened[0], "big") if opened else 0]).fetchone()
        spent = int(row[0]) if row else 0
    return LinkStatus(name, None, spent, budget, None if budget is None else max(0, budget - spent))
