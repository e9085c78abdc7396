"""Who this truck is: its two private keys, made here and never leaving, and what it was told when it joined.

Files in DATA/identity, readable by the daemon alone, each published by write, fsync, rename, fsync of the folder; the
keys may be systemd credentials instead. The enrolment is written last: a truck either has joined or has not.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from protocol.cose import SigningKey
from protocol.edhoc import EdhocKey, generate_key
from protocol.errors import LocalError, PeerError
from protocol.joincode import Address
from protocol.numbers import ADDRESSES_MAX, EXCHANGE_KEYS
from protocol.wire import Digest, Name, WireArray
from store.files import publish, sync_folder
from store.keyfiles import KeyMissingError, KeyUnreadableError, has_key, read_key

# File of DATA/identity -> name of the credential.
CREDENTIALS = {"signing.key": "digitruck-edge.signing", "edhoc.key": "digitruck-edge.edhoc"}

_NEXT = "next"


class NotEnrolledError(LocalError):
    """This truck has not joined a fleet yet."""


class Enrolment(WireArray, frozen=True):
    """What the truck was told: its name and group, the gateways, the gateway's EDHOC key, and the root to pin."""

    truck: Name
    group: Name
    addresses: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=ADDRESSES_MAX)]
    gateway_key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    root: Digest
    key_number: Annotated[int, Meta(ge=0, le=EXCHANGE_KEYS - 1)] = 0  # of gateway_key


@dataclass(frozen=True, slots=True)
class Keys:
    """The truck's private keys."""

    signing: SigningKey
    edhoc: EdhocKey


def make_keys(folder: Path) -> Keys:
    """Return this truck's keys, making them if there are none yet; a repeated `join` keeps them."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _take_next(folder)
    signing, exchange = folder / "signing.key", folder / "edhoc.key"
    if not has_key(signing, CREDENTIALS[signing.name]):
        publish(signing, os.urandom(32))
    if not has_key(exchange, CREDENTIALS[exchange.name]):
        key = generate_key()
        publish(exchange, key.private + key.public)
    return _read_keys(folder)


def make_next_keys(folder: Path) -> Keys:
    """Return the keys that are to replace this truck's, made beside them; they count once `save_next` was called."""
    _take_next(folder)
    waiting = folder / _NEXT
    waiting.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (waiting / "signing.key").exists():
        publish(waiting / "signing.key", os.urandom(32))
    if not (waiting / "edhoc.key").exists():
        key = generate_key()
        publish(waiting / "edhoc.key", key.private + key.public)
    return _read_keys(waiting)


def save_next(folder: Path, enrolment: Enrolment) -> None:
    """Make the enrolment with the next keys durable, and put them in the place of the old ones."""
    save_enrolment(folder / _NEXT, enrolment)
    _take_next(folder)


def _take_next(folder: Path) -> None:
    """Move the next keys to their place, if they were enrolled: the enrolment beside them says so, and goes last."""
    waiting = folder / _NEXT
    if not (waiting / "enrolment.cbor").exists():
        return
    for name in (*CREDENTIALS, "enrolment.cbor"):
        if (waiting / name).exists():
            (waiting / name).replace(folder / name)
            sync_folder(folder)
            sync_folder(waiting)
    shutil.rmtree(waiting)


def _read_keys(folder: Path) -> Keys:
    try:
        seed = read_key(folder / "signing.key", CREDENTIALS["signing.key"], 32)
        exchange = read_key(folder / "edhoc.key", CREDENTIALS["edhoc.key"], 64)
    except KeyMissingError as error:
        raise NotEnrolledError(
            "this truck has no keys here: run `digitruck-edge join CODE`, or start the service that is handed them"
        ) from error
    except KeyUnreadableError as error:
        raise LocalError(
            f"{error}; if that does not help, ask for a new code and run `digitruck-edge join CODE`"
        ) from error
    return Keys(SigningKey(seed), EdhocKey(exchange[:32], exchange[32:]))


def save_enrolment(folder: Path, enrolment: Enrolment) -> None:
    """Make the enrolment durable: from now on this truck has joined."""
    publish(folder / "enrolment.cbor", enrolment.encode())


def load_enrolment(folder: Path) -> Enrolment:
    """Return what the truck was told when it joined; raise `NotEnrolledError` with the next step."""
    try:
        return Enrolment.decode((folder / "enrolment.cbor").read_bytes())
    except FileNotFoundError as error:
        raise NotEnrolledError("this truck has not joined yet: run `digitruck-edge join CODE`") from error
    except OSError as error:
        raise LocalError(f"{folder}/enrolment.cbor cannot be read: {error.strerror}") from error
    except PeerError as error:
        raise LocalError(f"{folder}/enrolment.cbor is damaged: run `digitruck-edge join CODE` again") from error


def load_identity(folder: Path) -> tuple[Keys, Enrolment]:
    """Return keys and enrolment; raise `NotEnrolledError` with the next step."""
    _take_next(folder)
    enrolment = load_enrolment(folder)
    return _read_keys(folder), enrolment
