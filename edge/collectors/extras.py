"""Libraries that only some trucks need: imported when their collector starts, with a clear word if they are absent."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from edge.collectors.base import SourceError


async def import_extra(module: str, extra: str) -> Any:
    """Return a module; raise `SourceError` naming the extra to install if it is absent or does not load.

    In a thread: on a small computer an import takes seconds, and the satellite link does not wait for a router.
    """
    try:
        return await asyncio.to_thread(importlib.import_module, module)
    except ImportError as error:
        say = f"needs the extra: pip install 'digitruck[{extra}]', or what requirements/instruments.lock lists"
        raise SourceError(f"{say} ({error})") from error
