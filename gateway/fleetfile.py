"""The fleet file: which trucks there are, where they stand and who pays for them, in TOML that people write.

It names and describes; it gives no rights. A truck is known to the gateway only once it has enrolled, and where it is
now comes from its telemetry. Without a path the example fleet is read: the eleven Digitrucks of the programme.
"""

from __future__ import annotations

import importlib.resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.errors import PeerError
from protocol.numbers import NAME_PATTERN, TEXT_CHARS_MAX

FLEET_BYTES_MAX = 4 * 1024 * 1024  # 10,000 trucks with room to spare; a larger file is some other file
TRUCKS_MAX = 10_000

# "$" would let a newline follow the name.
_NAME_PATTERN = NAME_PATTERN.removesuffix("$") + r"\Z"

Text = Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX)]


class FleetFileError(PeerError):
    """The fleet file cannot be read or does not hold; the message names the file and the key."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


class FleetTruck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One truck as the fleet file describes it: `name` is its identity everywhere, the rest is for people."""

    name: Annotated[str, Meta(pattern=_NAME_PATTERN)]
    display_name: Text
    place: Text
    country_code: Annotated[str, Meta(pattern=r"^[A-Z]{2}\Z")]  # ISO 3166-1 alpha-2
    country: Text
    partner: Text | None = None
    latitude_deg: Annotated[float, Meta(ge=-90, le=90)]  # WGS 84, north positive
    longitude_deg: Annotated[float, Meta(ge=-180, le=180)]  # WGS 84, east positive
    workstations: Annotated[int, Meta(ge=0, le=1000)]
    touring: bool = False  # it has no home: its place is where it starts from


class _FleetFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    truck: Annotated[tuple[FleetTruck, ...], Meta(min_length=1, max_length=TRUCKS_MAX)]


def load_fleet(path: Path | None = None) -> tuple[FleetTruck, ...]:
    """Return the trucks of the fleet file at `path`, in its order, or the example fleet if `path` is None.

    Raises `FleetFileError` if the file is missing, is not TOML, has an unknown, missing or wrong key, or names a truck
    twice.
    """
    if path is None:
        return _parse(importlib.resources.files("gateway") / "demo" / "fleet.toml", "the example fleet")
    return _parse(path, str(path))


def _parse(file: Traversable, source: str) -> tuple[FleetTruck, ...]:
    try:
        with file.open("rb") as stream:
            text = stream.read(FLEET_BYTES_MAX + 1)
    except OSError as error:
        raise FleetFileError(source, f"cannot be read: {error.strerror}") from error
    if len(text) > FLEET_BYTES_MAX:
        raise FleetFileError(source, f"more than {FLEET_BYTES_MAX} bytes")
    try:
        trucks = msgspec.toml.decode(text, type=_FleetFile).truck
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FleetFileError(source, str(error)) from error
    first_of: dict[str, int] = {}
    for index, truck in enumerate(trucks):
        first = first_of.setdefault(truck.name, index)
        if first != index:
            raise FleetFileError(
                source, f"`{truck.name}` is named twice - at `$.truck[{first}]` and `$.truck[{index}]`"
            )
    return trucks
