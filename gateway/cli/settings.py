"""A configuration as people write it: TOML, or `KEY=VALUE` pairs with dotted keys; and what differs between two.

Both forms are the same settings under the same names: `links.sat.month_bytes_max` is the field of that name of link
`sat` in the signed `Config`. What `show` prints can be edited and given back to `set`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from gateway.cli.output import CommandError
from gateway.cli.tariffs import BudgetText, PoolText, PowerText, TariffText, TimetableText, spend_settings
from protocol.documents import Addressee, CollectorConfig, Config, LinkConfig, read_document
from protocol.errors import MalformedError
from protocol.numbers import DocumentKind

Scalar: TypeAlias = int | bool | str
Settings: TypeAlias = dict[str, Scalar]
"""Dotted key to value, in no order; a missing key means: as the truck has it."""

UNLIMITED = "unlimited"
_TABLES = ("collectors", "links", "tariffs", "budgets", "pools")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class _Collector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    period_s: int


class _Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    month_bytes_max: int | Literal["unlimited"]
    reserve_bytes: int = 0
    price_per_mb_milli: int = 0
    currency: str = "USD"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    batch_age_s: int | None = None
    confirm_within_s: int | None = None
    collectors: dict[str, _Collector] = {}
    links: dict[str, _Link] = {}
    extra: dict[str, Scalar] = {}
    tariffs: dict[str, TariffText] = {}
    budgets: dict[str, BudgetText] = {}
    pools: dict[str, PoolText] = {}
    power: PowerText | None = None
    timetable: TimetableText | None = None


def settings_of(config: Config | None) -> Settings:
    """Return a configuration's settings; none for None."""
    found: Settings = {}
    if config is None:
        return found
    if config.batch_age_s is not None:
        found["batch_age_s"] = config.batch_age_s
    if config.confirm_within_s is not None:
        found["confirm_within_s"] = config.confirm_within_s
    for collector in config.collectors:
        found[f"collectors.{collector.name}.period_s"] = collector.period_s
    for link in config.links:
        cap = link.month_bytes_max
        found[f"links.{link.name}.month_bytes_max"] = UNLIMITED if cap is None else cap
        found[f"links.{link.name}.reserve_bytes"] = link.reserve_bytes
        found[f"links.{link.name}.price_per_mb_milli"] = link.price_per_mb_milli
        found[f"links.{link.name}.currency"] = link.currency
    for name, value in config.extra.items():
        found[f"extra.{name}"] = value
    return found | spend_settings(config)


def make_config(settings: Settings, *, addressee: Addressee, version: int, issued_s: int, expires_s: int) -> Config:
    """Return the configuration that says these settings; raise `CommandError` naming the setting that is wrong."""
    try:
        file = msgspec.convert(_nested(settings), type=_File)
        config = Config(
            document=DocumentKind.CONFIG,
            version=version,
            issued_s=issued_s,
            expires_s=expires_s,
            addressee=addressee,
            batch_age_s=file.batch_age_s,
            collectors=tuple(CollectorConfig(name, each.period_s) for name, each in sorted(file.collectors.items())),
            links=tuple(
                LinkConfig(
                    name,
                    None if isinstance(each.month_bytes_max, str) else each.month_bytes_max,
                    each.reserve_bytes,
                    each.price_per_mb_milli,
                    each.currency,
                )
                for name, each in sorted(file.links.items())
            ),
            confirm_within_s=file.confirm_within_s,
            extra=file.extra,
            tariffs=tuple(each.tariff(name) for name, each in sorted(file.tariffs.items())),
            budgets=tuple(each.budget(name) for name, each in sorted(file.budgets.items())),
            pools=tuple(each.pool(name) for name, each in sorted(file.pools.items())),
            power=None if file.power is None else file.power.power(),
            timetable=None if file.timetable is None else file.timetable.timetable(),
        )
        read_document(config.encode())  # every bound and pattern, as a truck will check them
    except (msgspec.ValidationError, MalformedError, ValueError) as error:
        raise CommandError(f"no truck would accept this configuration: {error}") from error
    return config


def read_toml(text: str) -> Settings:
    """Return the settings in a TOML file; raise `CommandError` naming the key that is wrong."""
    try:
        file = msgspec.toml.decode(text, type=_File)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CommandError(f"the file is not a configuration: {error}") from error
    found: Settings = {}
    for name, value in msgspec.to_builtins(file).items():
        if isinstance(value, dict):
            for inner, each in value.items():
                if isinstance(each, dict):
                    found.update({f"{name}.{inner}.{field}": _plain(item) for field, item in each.items()})
                else:
                    found[f"{name}.{inner}"] = _plain(each)
        elif value is not None:
            found[name] = value
    return found


def apply_pairs(settings: Settings, pairs: Sequence[str]) -> Settings:
    """Return settings with `KEY=VALUE` pairs applied; `KEY=` takes a key, or all below it, away."""
    changed = dict(settings)
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise CommandError(f"{pair!r} is neither a TOML file nor KEY=VALUE, e.g. links.sat.month_bytes_max=3000000")
        if text:
            changed[key] = _scalar(text)
            continue
        gone = [name for name in changed if name == key or name.startswith(f"{key}.")]
        if not gone:
            raise CommandError(f"{key} is not set, so it cannot be taken away: see digitruck config show")
        for name in gone:
            del changed[name]
    return changed


def to_toml(settings: Settings) -> str:
    """Return settings as TOML with dotted keys, one a line, in order."""
    return "\n".join(f"{_toml_key(key)} = {_toml_value(value)}" for key, value in sorted(settings.items()))


def differences(old: Settings, new: Settings) -> list[str]:
    """Return what changes, a line each: `- key = old`, `+ key = new`."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if before == after and type(before) is type(after):
            continue
        if key in old:
            lines.append(f"- {_toml_key(key)} = {_toml_value(old[key])}")
        if key in new:
            lines.append(f"+ {_toml_key(key)} = {_toml_value(new[key])}")
    return lines


def _nested(settings: Settings) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        first, dot, rest = key.partition(".")
        if first in _TABLES and dot:
            name, dot, field = rest.rpartition(".")
            if not dot:
                raise CommandError(f"{key} lacks a part: write {first}.NAME.FIELD")
            nested.setdefault(first, {}).setdefault(name, {})[field] = value
        elif first in ("extra", "power", "timetable") and dot:
            nested.setdefault(first, {})[rest] = value
        else:
            nested[key] = value
    return nested


def _plain(value: Scalar | float) -> Scalar:
    # A decimal is kept as its text: money is never a binary fraction.
    return str(value) if isinstance(value, float) else value


def _scalar(text: str) -> Scalar:
    if re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    if text in ("true", "false"):
        return text == "true"
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    return text


def _toml_key(key: str) -> str:
    first, dot, rest = key.partition(".")
    if first == "extra" and dot and not _BARE.fullmatch(rest):
        return f"extra.{_toml_value(rest)}"
    return key


def _toml_value(value: Scalar) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
    # JSON's escapes are TOML's, but for characters beyond 16 bits, which both may hold as they are, and DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
