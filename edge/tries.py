"""The tries of one installation: from what is held, then with that made whole, then from nothing."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import structlog

from edge.link_errors import RefusedError
from protocol.errors import PeerError

log = structlog.get_logger("edge.tries")


class Install(Protocol):
    """Fetches a pack and installs what it leads to; raises `PeerError` where it leads nowhere."""

    def __call__(self, *, from_nothing: bool) -> Awaitable[None]:
        """Try it once."""
        ...


class Mend(Protocol):
    """Looks for what rotted of what is held, and mends it."""

    def __call__(self) -> Awaitable[bool]:
        """Return whether something had rotted and is whole again."""
        ...


async def install_somehow(install: Install, mend: Mend, bundle: str) -> None:
    """Install, in up to three tries; raise the `PeerError` of the last, or the first one that will pass by itself.

    Rot in what is held costs the files that rotted and one more pack, not the whole bundle. A gateway that does not
    know what is held costs that.
    """
    try:
        return await install(from_nothing=False)
    except PeerError as failure:
        _raise_if_passing(failure)
        log.warning("pack.unusable", bundle=bundle, reason=str(failure))
    if await mend():
        try:
            return await install(from_nothing=False)
        except PeerError as failure:
            _raise_if_passing(failure)
            log.warning("pack.unusable", bundle=bundle, reason=str(failure), mended=True)
    return await install(from_nothing=True)


def _raise_if_passing(failure: PeerError) -> None:
    if isinstance(failure, RefusedError) and failure.is_passing:
        raise failure


async def mend_nothing() -> bool:
    """Mend nothing: for whoever has no way to."""
    return False
