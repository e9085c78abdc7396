"""The gateway's own keys: EDHOC keys open sessions, freshness keys stamp desired states; neither can do more.

The first ones are made by `init`. To rotate, a further one is made beside them (`digitruck-gateway key new`) with the
next number; it counts as soon as a root names it, also while the gateway runs, and the old one is removed once no truck
needs it. Which keys count is only ever said by the root.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from protocol.cose import SigningKey
from protocol.documents import Root
from protocol.edhoc import EdhocKey, generate_key
from protocol.errors import LocalError
from protocol.numbers import EXCHANGE_KEYS
from store.files import publish
from store.keyfiles import KeyMissingError, KeyUnreadableError, has_key, read_key

log = structlog.get_logger("gateway.ownkeys")

# File of DATA/keys -> name of the credential.
CREDENTIALS = {"edhoc.key": "digitruck-gateway.edhoc", "freshness.key": "digitruck-gateway.freshness"}
_FILES = {"exchange": "edhoc", "freshness": "freshness"}
_SIZES = {"edhoc": 64, "freshness": 32}


@dataclass(frozen=True, slots=True)
class GatewayKeys:
    """The keys that this gateway holds: the first of each kind, and by number those that were made since."""

    exchange: EdhocKey
    freshness: SigningKey
    later_exchange: dict[int, EdhocKey] = field(default_factory=dict)
    later_freshness: dict[int, SigningKey] = field(default_factory=dict)

    @property
    def exchange_keys(self) -> dict[int, EdhocKey]:
        """The EDHOC keys by number, in ascending order."""
        return {0: self.exchange, **self.later_exchange}

    @property
    def freshness_keys(self) -> dict[int, SigningKey]:
        """The freshness keys by number, in ascending order."""
        return {0: self.freshness, **self.later_freshness}


class OwnKeys:
    """The keys in a folder, read again when a root names one that was made meanwhile."""

    def __init__(self, folder: Path) -> None:
        """Read the keys; raise `LocalError` with the next step."""
        self._folder = folder
        self.keys = load_keys(folder)

    def exchange_for(self, root: Root | None) -> tuple[int, EdhocKey]:
        """Return the EDHOC key that new trucks are given, and its number: the first that the root names, else key 0."""
        if root is None or not root.exchange:
            return 0, self.keys.exchange
        self._look_for({each.key for each in root.exchange})
        held = self.keys.exchange_keys
        for each in root.exchange:
            if each.number in held and held[each.number].public == each.key:
                return each.number, held[each.number]
        log.error("key.missing", kind="exchange", root=root.version)
        return 0, self.keys.exchange

    def freshness_for(self, root: Root | None) -> SigningKey:
        """Return the freshness key to sign with: the newest that the root names."""
        if root is None:
            return self.keys.freshness
        self._look_for(set(root.gateway.keys))
        for key in reversed(self.keys.freshness_keys.values()):
            if key.public in root.gateway.keys:
                return key
        log.error("key.missing", kind="freshness", root=root.version)
        return self.keys.freshness

    def _look_for(self, named: set[bytes]) -> None:
        """Read the folder again if it may hold a key by now that was not there before."""
        keys = self.keys
        held = {each.public for each in keys.exchange_keys.values()}
        held |= {each.public for each in keys.freshness_keys.values()}
        if not named <= held:
            self.keys = load_keys(self._folder)


def make_keys(folder: Path) -> GatewayKeys:
    """Make the gateway's first keys unless they are there; return all of them."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not has_key(folder / "edhoc.key", CREDENTIALS["edhoc.key"]):
        _make(folder / "edhoc.key", "edhoc")
    if not has_key(folder / "freshness.key", CREDENTIALS["freshness.key"]):
        _make(folder / "freshness.key", "freshness")
    return load_keys(folder)


def add_key(folder: Path, kind: str) -> int:
    """Make a further `exchange` or `freshness` key and return its number; raise `LocalError` if there are too many."""
    keys = load_keys(folder)
    number = 1 + max(keys.exchange_keys if kind == "exchange" else keys.freshness_keys)
    if number >= EXCHANGE_KEYS:
        raise LocalError(f"{EXCHANGE_KEYS} keys were made here: move the oldest files away, they are not needed")
    _make(folder / f"{_FILES[kind]}-{number}.key", _FILES[kind])
    return number


def load_keys(folder: Path) -> GatewayKeys:
    """Return the gateway's keys, from files or credentials; raise `LocalError` with the next step."""
    try:
        return GatewayKeys(
            _exchange(read_key(folder / "edhoc.key", CREDENTIALS["edhoc.key"], _SIZES["edhoc"])),
            SigningKey(read_key(folder / "freshness.key", CREDENTIALS["freshness.key"], _SIZES["freshness"])),
            {number: _exchange(data) for number, data in _later(folder, "edhoc").items()},
            {number: SigningKey(data) for number, data in _later(folder, "freshness").items()},
        )
    except KeyMissingError as error:
        raise LocalError(f"{error}; run `digitruck-gateway init DIR` first, or restore it from a backup") from error
    except KeyUnreadableError as error:
        raise LocalError(f"{error}; or restore it from a backup") from error


def key_files(folder: Path) -> dict[str, str]:
    """Return every key's file name in the folder, whether it is there or a credential, and its credential's name."""
    later = [f"{stem}-{number}.key" for stem in _SIZES for number in _later_numbers(folder, stem)]
    return CREDENTIALS | {name: _credential(name) for name in later}


def places_of_keys(folder: Path) -> str:
    """Return where the gateway's keys are: files, credentials of the service, or both."""
    places = {"file" if (folder / name).exists() else "credential" for name in key_files(folder)}
    return ", ".join(sorted(places))


def _make(path: Path, stem: str) -> None:
    if stem == "edhoc":
        key = generate_key()
        publish(path, key.private + key.public)
    else:
        publish(path, os.urandom(_SIZES[stem]))


def _exchange(data: bytes) -> EdhocKey:
    return EdhocKey(data[:32], data[32:])


def _later(folder: Path, stem: str) -> dict[int, bytes]:
    names = {number: f"{stem}-{number}.key" for number in _later_numbers(folder, stem)}
    return {number: read_key(folder / name, _credential(name), _SIZES[stem]) for number, name in names.items()}


def _later_numbers(folder: Path, stem: str) -> list[int]:
    names = {number: f"{stem}-{number}.key" for number in range(1, EXCHANGE_KEYS)}
    return [number for number, name in names.items() if has_key(folder / name, _credential(name))]


def _credential(name: str) -> str:
    return f"digitruck-gateway.{name.removesuffix('.key')}"
