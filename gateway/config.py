"""The gateway's configuration file, gateway.toml. Unknown keys are refused with their path; every key has a default."""

from __future__ import annotations

import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from protocol.errors import LocalError
from protocol.joincode import Address

Listen = Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:]+\]|[0-9.]+):[0-9]{1,5}\Z")]


class ConfigError(LocalError):
    """The configuration file cannot be used; the text says which key and why."""


class CoapSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[coap]`: where trucks reach this gateway. `public` goes into enrolment codes."""

    listen: Listen = "0.0.0.0:5683"
    public: tuple[Address, ...] = ("127.0.0.1:5683",)


class HttpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[http]`: where operators and publishers reach this gateway."""

    listen: Listen = "127.0.0.1:8080"
    certificate: str | None = None
    private_key: str | None = None


RoleName = Literal["viewer", "operator", "publisher", "admin"]
# What a sign-in sends and gets can be read on the way unless it is https; loopback is for tests and for one machine.
SafeUrl = Annotated[
    str, Meta(pattern=r"^(https://[^\s?#]+|http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?(/[^\s?#]*)?)\Z")
]


class OidcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[oidc]`: people sign in at an OpenID provider. The first of `roles` whose key is in the claim counts."""

    issuer: SafeUrl
    client_id: Annotated[str, Meta(min_length=1, max_length=256)]
    redirect_url: SafeUrl
    roles: Annotated[dict[str, RoleName], Meta(min_length=1, max_length=256)]
    client_secret_file: str | None = None
    role_claim: str = "groups"
    name_claim: str = "email"
    scopes: tuple[str, ...] = ("openid", "email")
    session_s: Annotated[int, Meta(ge=300, le=86_400)] = 4 * 3_600
    landing: Annotated[str, Meta(pattern=r"^/([A-Za-z0-9._-][A-Za-z0-9._/-]*)?\Z")] = "/v1/session"


class MailSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[alerts.mail]`: where alarms are mailed to, and by which server. The password is a file's first line."""

    server: Annotated[str, Meta(min_length=1, max_length=253)]
    sender: Annotated[str, Meta(pattern=r"^[^\s<>]+@[^\s<>]+\Z")]
    to: Annotated[tuple[Annotated[str, Meta(pattern=r"^[^\s<>]+@[^\s<>]+\Z")], ...], Meta(min_length=1, max_length=32)]
    port: Annotated[int, Meta(ge=1, le=65_535)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password_file: str | None = None


class AlertSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[alerts]`: from when on a truck needs somebody, and when nobody is to be woken by a warning."""

    silent_days: Annotated[float, Meta(gt=0, le=3_650)] = 3.0
    lost_days: Annotated[float, Meta(gt=0, le=3_650)] = 21.0
    battery_low_percent: Annotated[float, Meta(ge=0, le=100)] = 25.0
    disk_full_percent: Annotated[float, Meta(ge=1, le=100)] = 90.0
    moved_km: Annotated[float, Meta(gt=0, le=20_000)] = 2.0
    quiet_hours: Annotated[str, Meta(pattern=r"^([01]?[0-9]|2[0-3])-([01]?[0-9]|2[0-3])\Z")] | None = None
    time_zone: Annotated[str, Meta(min_length=1, max_length=64)] = "UTC"
    mail: MailSettings | None = None


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file. Relative paths are relative to the file."""

    data: str = "."
    database: str | None = None
    log_level: Annotated[str, Meta(pattern=r"^(debug|info|warning|error)\Z")] = "info"
    pack_workers: Annotated[int, Meta(ge=1, le=64)] = 1
    fleet: str | None = None
    coap: CoapSettings = CoapSettings()
    http: HttpSettings = HttpSettings()
    oidc: OidcSettings | None = None
    alerts: AlertSettings = AlertSettings()


def load_config(path: Path) -> GatewayConfig:
    """Read the file; raise `ConfigError` naming the key that is wrong and what to do."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; run `digitruck-gateway init DIR` first") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text") from error
    return parse_config(text, str(path))


def parse_config(text: str, where: str) -> GatewayConfig:
    """Return the configuration in `text`; raise `ConfigError` that begins with `where`."""
    try:
        config = msgspec.convert(tomllib.loads(text), GatewayConfig, strict=True)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: {error}") from error
    for listen in (config.coap.listen, config.http.listen):
        try:
            split_listen(listen)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
    try:
        ZoneInfo(config.alerts.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(f"{where}: alerts.time_zone: there is no time zone {config.alerts.time_zone!r}") from error
    return config


def split_listen(listen: str) -> tuple[str, int]:
    """Return (IP literal, port) of a listen address; raise `ConfigError` for a port that does not exist."""
    host, _, port = listen.rpartition(":")
    if int(port) > 65_535:
        raise ConfigError(f"{listen}: a port is at most 65535")
    host = host.strip("[]")
    try:
        ip_address(host)
    except ValueError as error:
        raise ConfigError(f"{listen}: {host} is no IP address") from error
    return host, int(port)


DEFAULT_TEXT = """\
# digitruck-gateway configuration. Every line that is commented out shows a default.

# data = "."                          # database, keys, blobs and packs; relative to this file
# database = "sqlite:///…/fleet.db"   # or postgresql://user@host/name (install the postgres extra)
# log_level = "info"
# pack_workers = 1                    # processes that make content packs
# fleet = "fleet.toml"                # names, countries and partners of trucks, for reports; see the README

[coap]
listen = "0.0.0.0:{port}"
public = ["{coap}"]   # what trucks call: goes into enrolment codes, several for fail-over

[http]
listen = "{http}"
# certificate = "/etc/…/fullchain.pem"
# private_key = "/etc/…/privkey.pem"

# People sign in at an OpenID provider, beside tokens. The first of the roles whose key is in the claim counts.
# [oidc]
# issuer = "https://id.example.org"
# client_id = "digitruck"
# client_secret_file = "keys/oidc.secret"   # in the data folder; left out for a public client
# redirect_url = "https://fleet.example.org/v1/session/callback"
# role_claim = "groups"                     # in the ID token: a text or a list of them
# roles = {{ fleet-admins = "admin", drivers = "operator", library = "publisher", everybody = "viewer" }}
# name_claim = "email"
# scopes = ["openid", "email"]
# session_s = 14400                         # 300 to 86400
# landing = "/v1/session"                   # where a browser goes afterwards

# Alarms are at the console and in `digitruck alarm list`, and go to webhooks (`digitruck webhook new`) and by mail.
# [alerts]
# silent_days = 3                           # not heard for so long is a warning,
# lost_days = 21                            # and for so long critical
# battery_low_percent = 25                  # at half of it critical
# disk_full_percent = 90
# moved_km = 2                              # at night, from where it stood in the evening
# quiet_hours = "22-6"                      # warnings wait; what is critical does not
# time_zone = "Africa/Nairobi"              # of the quiet hours; UTC if left out
# [alerts.mail]
# server = "mail.example.org"
# port = 587
# security = "starttls"                     # or "tls", "none"
# sender = "digitruck@example.org"
# to = ["ops@example.org"]
# user = "digitruck"
# password_file = "keys/mail.secret"        # in the data folder
"""
