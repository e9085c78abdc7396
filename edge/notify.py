"""Telling systemd how the daemon does: see `store.notify`, which both daemons use."""

from store.notify import notify, watchdog_pause_s

__all__ = ["notify", "watchdog_pause_s"]
