"""Telling systemd how the daemon does: see `store.notify`, which both daemons use."""

from store.notify import notify

__all__ = ["notify"]
