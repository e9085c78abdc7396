"""Packs that are known without asking the gateway: a stick brought them, in part or whole (settings of state.db)."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from protocol.errors import PeerError
from protocol.numbers import HELD_MANIFESTS_MAX
from protocol.wire import Digest, Uint, WireArray
from store.settings import Settings
from store.writer import Writer

_KEY: Final = "pack."


class KnownPack(WireArray, frozen=True):
    """A pack that is (partly) here: its digest and size (bytes), and the manifests that it stands on."""

    pack: Digest
    size: Uint
    held: Annotated[tuple[Digest, ...], Meta(max_length=HELD_MANIFESTS_MAX)]


class KnownPacks:
    """What is known of packs, by the manifest that they lead to."""

    def __init__(self, settings: Settings, writer: Writer) -> None:
        self._settings = settings
        self._writer = writer

    async def remember(self, manifest: bytes, known: KnownPack) -> None:
        """Note which pack leads to a manifest; it is asked for by its digest from then on."""
        await self._writer.run(lambda: self._settings.put(_KEY + manifest.hex(), known.encode()))

    async def recall(self, manifest: bytes) -> KnownPack | None:
        """Return the pack that was noted for a manifest, None if there is none."""
        data = await self._writer.run(lambda: self._settings.get(_KEY + manifest.hex()))
        try:
            return None if data is None else KnownPack.decode(data)
        except PeerError:
            return None

    async def forget(self, manifest: bytes) -> None:
        """Forget what was noted for a manifest."""
        await self._writer.run(lambda: self._settings.remove(_KEY + manifest.hex()))
