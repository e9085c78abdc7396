"""Telling the service manager how the daemon does (sd_notify(3)): a datagram to a local socket, nothing more."""

from __future__ import annotations

import os
import socket


def watchdog_pause_s(longest_s: float) -> float:
    """Return how long to wait between pings: half of what the service manager waits, `longest_s` at most."""
    for_me = os.environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    text = os.environ.get("WATCHDOG_USEC", "")
    if not for_me or not text.isdecimal() or not int(text):
        return longest_s
    return min(longest_s, int(text) / 2_000_000)


def notify(state: str) -> bool:
    """Send `state` (such as READY=1 or WATCHDOG=1); return False where nobody listens. Never waits."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or address[0] not in "/@":
        return False
    # A leading @ stands for the abstract namespace (sd_notify(3)).
    name = "\0" + address[1:] if address[0] == "@" else address
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    try:
        with socket.socket(socket.AF_UNIX, kind) as channel:
            channel.sendto(state.encode(), name)
    except (OSError, ValueError):
        return False
    return True
