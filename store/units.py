"""What the systemd units of both daemons have in common: how they are kept alive and what they may not touch.

`digitruck-edge unit` and `digitruck-gateway unit` print whole units. `systemd-analyze security` rates them; what is
not taken away is what a daemon needs: its data folder, its sockets, and on a truck its serial ports and interfaces.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

_HARDENING = """\
UMask=0077
LimitCORE=0
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateMounts=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
KeyringMode=private
LockPersonality=yes
RemoveIPC=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM"""


def service(description: str, command: Sequence[str | Path], *, user: str, writes: Path, lines: Sequence[str]) -> str:
    """Return a unit that starts `command`, waits for its READY=1 and restarts it when it ends or hangs, for ever.

    `writes` is the folder that the service may write; `lines` are settings of this service alone.
    """
    return f"""\
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
User={user}
ExecStart={" ".join(_quoted(str(each)) for each in command)}
Restart=always
RestartSec=5
WatchdogSec=300
TimeoutStartSec=300
ReadWritePaths={_quoted(str(writes))}
{"".join(f"{line}{chr(10)}" for line in lines)}{_HARDENING}

[Install]
WantedBy=multi-user.target
"""


def _quoted(word: str) -> str:
    """Return a word as a unit takes it: % and $ are not specifiers, and blanks do not divide it."""
    escaped = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    return f'"{escaped}"' if " " in escaped or escaped != word else word


def program(name: str) -> Path:
    """Return where a command of this installation lies, as a unit has to name it."""
    beside = Path(sys.executable).with_name(name)
    return beside if beside.exists() else Path(shutil.which(name) or name).absolute()
