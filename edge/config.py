"""The truck's own configuration file, edge.toml: what an operator's signed configuration cannot know or must not need.

Unknown keys are refused with their path. Everything has a default but the collectors' sources: a truck that has joined
runs with an empty file.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from protocol.errors import LocalError
from protocol.joincode import Address
from protocol.wire import Name

Megabytes = Annotated[int, Meta(ge=1, le=1_000_000)]


class ConfigError(LocalError):
    """The configuration file cannot be used; the text says which key and why."""


class LinkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[link]]`: an uplink of this truck and its simple budget."""

    name: Name
    interface: str | None = None
    gateways: tuple[Address, ...] = ()
    month_bytes_max: Annotated[int, Meta(ge=0)] | None = None
    reserve_bytes: Annotated[int, Meta(ge=0)] = 0
    price_per_mb: Annotated[float, Meta(ge=0, le=100_000)] = 0.0
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")] = "USD"
    bulk: bool = True
    metered: bool = True


class ClassroomSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[classroom]`: the HTTP service of the classroom LAN and of local scripts."""

    listen: Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:]+\]|[0-9.]+):[0-9]{1,5}\Z")] = "0.0.0.0:8080"
    local_post_from: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    language: Annotated[str, Meta(pattern=r"^(am|en|fr|pt|sw)\Z")] = "en"
    teacher_pin: Annotated[str, Meta(min_length=4, max_length=32)] | None = None


class HookSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[hook]]`: a program of this truck that says whether a version of content is fit to stay."""

    command: Annotated[tuple[str, ...], Meta(min_length=1, max_length=64)]
    bundle: Name | None = None
    kind: Annotated[str, Meta(pattern=r"^(static|files|zim|kolibri)\Z")] | None = None
    timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 300


class KolibriSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[kolibri]`: the Kolibri on this truck that imports bundles of its kind from the disk."""

    command: Annotated[tuple[str, ...], Meta(min_length=1, max_length=64)] = ("kolibri",)
    home: str | None = None
    timeout_s: Annotated[float, Meta(gt=0, le=7 * 86_400)] = 14_400


class EdgeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    data: str = "/var/lib/digitruck"
    state_mb_max: Megabytes = 512
    content_mb_max: Megabytes = 200_000
    batch_age_s: Annotated[int, Meta(ge=1, le=7 * 86_400)] = 14_400
    summary_after_s: Annotated[int, Meta(ge=0, le=30 * 86_400)] = 21_600
    patience_s: Annotated[int, Meta(ge=0, le=30 * 86_400)] = 900
    retry_s_max: Annotated[int, Meta(ge=1, le=86_400)] = 300
    account_days: Annotated[int, Meta(ge=0, le=366)] = 28
    log_level: Annotated[str, Meta(pattern=r"^(debug|info|warning|error)\Z")] = "info"
    classroom: ClassroomSettings = ClassroomSettings()
    hook: Annotated[tuple[HookSettings, ...], Meta(max_length=64)] = ()
    kolibri: KolibriSettings | None = None
    link: tuple[LinkSettings, ...] = (LinkSettings(name="lte"),)
    collector: tuple[dict[str, Any], ...] = ({"kind": "host", "name": "host", "period_s": 60},)

    def __post_init__(self) -> None:
        names = [link.name for link in self.link]
        if not names or len(set(names)) != len(names):
            raise ValueError("every [[link]] needs a name of its own, and there must be one")
        for link in self.link:
            if link.month_bytes_max is not None and link.reserve_bytes > link.month_bytes_max:
                raise ValueError(f"link {link.name}: reserve_bytes is more than month_bytes_max")


def load_config(path: Path) -> EdgeConfig:
    """Read the file; raise `ConfigError` naming the key that is wrong and what to do."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; run `digitruck-edge join CODE --config {path}` first") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text") from error
    try:
        return msgspec.convert(tomllib.loads(text), EdgeConfig, strict=True)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from error


DEFAULT_TEXT = """\
# digitruck-edge configuration. Every line that is commented out shows a default.

data = "{data}"                 # queues, keys and content live here
# state_mb_max = 512            # share of the disk for queues; beyond it old detail makes room
# content_mb_max = 200000       # share of the disk for bundles
# batch_age_s = 14400           # a batch closes when it fills a datagram or is this old
# summary_after_s = 21600       # detail that waits for longer is summarised by the hour, which goes first; 0: never
# patience_s = 900              # how long normal parcels wait for a cheaper link
# retry_s_max = 300             # the longest pause between tries of a link that does not answer
# account_days = 28             # how often the gateway is told what was counted here (some 200 bytes); 0: never
# log_level = "info"

[classroom]
# listen = "0.0.0.0:8080"       # the classroom's web page and the local API
# local_post_from = ["127.0.0.0/8", "::1/128"]
# language = "en"               # of its pages where a browser asks for none that they have: am, en, fr, pt, sw
# teacher_pin = "4711"          # asked for at /sessions, where teachers enter lessons; without it nobody is asked

# One table a link, the order does not matter. Without `gateways` the addresses of the enrolment are used.
[[link]]
name = "lte"
# interface = "wwan0"           # bind to this network interface
# month_bytes_max = 2000000000  # never spend more than this in a calendar month (UTC)
# reserve_bytes = 1000000       # of it, kept for flash alone
# price_per_mb = 0.01
# currency = "USD"

# [[link]]
# name = "sat"
# interface = "eth1"
# month_bytes_max = 30000000
# reserve_bytes = 500000
# price_per_mb = 5.0
# bulk = false                  # content waits for a cheaper link

# [[link]]
# name = "depot"
# interface = "wlan0"
# metered = false               # costs nothing: while it is up, batches go every 5 minutes instead of full

# [[hook]]                      # a version of content that this program does not end well for is rolled back
# bundle = "maths"              # of this bundle alone; without it, of every one
# kind = "files"                # of static, files, zim or kolibri alone; without it, of every one
# command = ["/usr/local/bin/check-lessons"]            # gets the version's folder; see DIGITRUCK_* too
# timeout_s = 300

# [kolibri]                     # imports bundles of its kind; for zim: kiwix-serve --monitorLibrary --library
# command = ["kolibri"]         # content/library.xml of the data folder
# home = "/var/lib/kolibri"
# timeout_s = 14400

[[collector]]
kind = "host"
name = "host"
period_s = 60

# [[collector]]
# kind = "vedirect"             # or csv-tail gpsd http-push modem mqtt nut place replay snmp starlink venus
#                               # victron-modbus workstations; the README has an example of each, and
#                               # `digitruck-edge check` tries it
# name = "solar"
# port = "/dev/ttyUSB0"
# period_s = 60
# batch_age_s = 900             # its batches close at this age, if that is less than that above
# precedence = "normal"         # of its batches: "priority" goes over any link within its budget, "bulk" waits
# schema = "solar.schema"       # what `digitruck-edge schema suggest --out` wrote, in the data folder
# on_change = {{ load_on = "normal" }}                  # each change of it is an event, at this precedence
# limits = [{{ channel = "battery_v", below = 24.0, clear = 25.0, precedence = "flash" }}]  # crossing it is an event
"""
