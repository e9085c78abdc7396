"""The part of a configuration that is about money: taken out, put back, checked key by key, and explained.

`gateway.cli.tariffs` has the text forms; here an error names the very key that is wrong, and what a person is about to
sign is told in sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.cli.ledger import money
from gateway.cli.output import CommandError, size
from gateway.cli.settings import UNLIMITED, Settings
from gateway.cli.tariffs import BudgetText, PoolText, PowerText, TariffText, TimetableText
from protocol.documents import Config
from protocol.errors import PeerError
from protocol.tariffs import BillingStep, Budget, Pool, Tariff, Unit
from protocol.windows import write_windows
from store.zones import offset_of

_TABLES: Final = ("tariffs", "budgets", "pools")
_FORMS: Final[dict[str, type[msgspec.Struct]]] = {
    "tariffs": TariffText,
    "budgets": BudgetText,
    "pools": PoolText,
    "power": PowerText,
    "timetable": TimetableText,
}
_MAKERS: Final = {"tariffs": "tariff", "budgets": "budget", "pools": "pool", "power": "power", "timetable": "timetable"}


def is_spending(key: str) -> bool:
    """Return whether a setting is about money, battery or lessons."""
    return key.partition(".")[0] in _FORMS


def spending_of(settings: Settings) -> Settings:
    """Return the settings that are about money, battery or lessons."""
    return {key: value for key, value in settings.items() if is_spending(key)}


def with_spending(settings: Settings, spending: Settings) -> Settings:
    """Return settings with all that is about money replaced, and what older trucks understand of it beside it.

    An older truck knows a cap in bytes by calendar month and a flat price (`links`): it gets the budget's bytes, or
    what the money buys, so that it does not spend without a limit.
    """
    wrong = [key for key in spending if not is_spending(key)]
    if wrong:
        raise CommandError(
            f"{wrong[0]} is not about money: give tariffs.LINK.*, budgets.LINK.*, pools.LINK.*, power.* or timetable.* "
            "here, and the rest to digitruck config set"
        )
    check_spending(spending)
    links = {key.split(".")[1] for key in (*spending, *spending_of(settings)) if key.partition(".")[0] in _TABLES}
    kept = {
        key: value
        for key, value in settings.items()
        if not is_spending(key) and not (key.startswith("links.") and key.split(".")[1] in links)
    }
    tables = _nested(spending)
    for link in sorted({name for part in _TABLES for name in tables.get(part, {})}):
        kept |= _for_older_trucks(link, tables)
    return kept | spending


def check_spending(spending: Settings) -> None:
    """Check every table; raise `CommandError` naming the key that is wrong."""
    for section, tables in _nested(spending).items():
        for name, fields in tables.items() if section in _TABLES else {"": tables}.items():
            _check_table(section, name, fields)


def _check_table(section: str, name: str, fields: Mapping[str, Any]) -> None:
    form = _FORMS[section]
    path = f"{section}.{name}" if name else section
    unknown = [field for field in fields if field not in form.__struct_fields__]
    if unknown:
        raise CommandError(f"{path}.{unknown[0]} is no setting: there are {', '.join(form.__struct_fields__)}")
    try:
        _made(form, section, name, fields)
    except (PeerError, ValueError) as whole:
        # Each key alone, on top of what the table cannot do without, shows which one it is.
        needed = {field: fields[field] for field in ("channel", "zone") if field in fields and section not in _TABLES}
        for field, value in fields.items():
            try:
                _made(form, section, name, needed | {field: value})
            except (PeerError, ValueError) as error:
                if section == "pools" and field == "grants":
                    continue  # needs its amount beside it
                raise CommandError(f"{path}.{field}: {_reason(error)}") from error
        raise CommandError(f"{path}: {_reason(whole)}") from whole


def _made(form: type[msgspec.Struct], section: str, name: str, fields: Mapping[str, Any]) -> object:
    made = getattr(msgspec.convert(dict(fields), type=form), _MAKERS[section])(*([name] if name else []))
    zone = getattr(made, "zone", None)
    if zone is not None:
        offset_of(zone)
    type(made).decode(made.encode())  # every bound and pattern, as a truck will check them
    return made


def _reason(error: Exception) -> str:
    return str(error).partition(" - at `$")[0]


def _nested(spending: Settings) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for key, value in spending.items():
        section, _, rest = key.partition(".")
        if section in _TABLES:
            name, dot, field = rest.rpartition(".")
            if not dot:
                raise CommandError(f"{key} lacks a part: write {section}.LINK.SETTING")
            nested.setdefault(section, {}).setdefault(name, {})[field] = value
        else:
            nested.setdefault(section, {})[rest] = value
    return nested


def _for_older_trucks(link: str, tables: Mapping[str, Mapping[str, Any]]) -> Settings:
    tariff = _made(TariffText, "tariffs", link, tables.get("tariffs", {}).get(link, {}))
    budget = _made(BudgetText, "budgets", link, tables.get("budgets", {}).get(link, {}))
    assert isinstance(tariff, Tariff)
    assert isinstance(budget, Budget)
    cap = budget.bytes_max
    if budget.money_max_milli is not None and tariff.price_per_mb_milli:
        bought = tariff.allowance_bytes + budget.money_max_milli * 1_000_000 // tariff.price_per_mb_milli
        cap = bought if cap is None else min(cap, bought)
    if link in tables.get("pools", {}):
        # It does not know pools, and would have the whole of one.
        cap = 0
    settings: Settings = {
        f"links.{link}.month_bytes_max": UNLIMITED if cap is None else cap,
        f"links.{link}.reserve_bytes": min(budget.reserve_bytes, cap) if cap is not None else budget.reserve_bytes,
        f"links.{link}.price_per_mb_milli": tariff.price_per_mb_milli,
        f"links.{link}.currency": tariff.currency,
    }
    return settings


# -- in sentences ------------------------------------------------------------------------------------------------------


def explained(config: Config) -> list[str]:
    """Return what a configuration says of money, a sentence or two for each link."""
    lines = []
    tariffs = {each.link: each for each in config.tariffs}
    budgets = {each.link: each for each in config.budgets}
    pools = {each.link: each for each in config.pools}
    for link in sorted({*tariffs, *budgets, *pools}):
        tariff = tariffs.get(link)
        says = [] if tariff is None else [_tariff(tariff)]
        if link in budgets:
            says.append(_budget(budgets[link], tariff or Tariff(link)))
        if link in pools:
            says.append(_pool(pools[link], tariff or Tariff(link)))
        lines.append(f"{link}: {'; '.join(says)}.")
    if config.power is not None:
        power = config.power
        lines.append(
            f"battery: bulk waits below {power.bulk_below_milli / 1000:g} of {power.channel}, "
            f"normal below {power.normal_below_milli / 1000:g}."
        )
    if config.timetable is not None:
        lines.append(f"lessons: bulk yields {write_windows(config.timetable.lessons)} ({config.timetable.zone}).")
    return lines


def _tariff(tariff: Tariff) -> str:
    price = money(tariff.price_per_mb_milli, tariff.currency) + " a MB"
    if tariff.session_milli:
        price += f" and {money(tariff.session_milli, tariff.currency)} a session"
    if tariff.step is not BillingStep.BYTE:
        price += f", each {tariff.step.name.lower()} rounded up to {size(tariff.step_bytes)}"
        if tariff.least_bytes:
            price += f" and at least {size(tariff.least_bytes)}"
    if tariff.allowance_bytes:
        price += f", {size(tariff.allowance_bytes)} included"
    period = tariff.period.name.lower()
    price += f"; a {period} from day {tariff.billing_day}" if period != "day" else "; by the day"
    price += f", {tariff.zone} time"
    for name, windows in (("free", tariff.free), ("used only", tariff.hours)):
        if windows:
            price += f", {name} {write_windows(windows)}"
    if tariff.roaming:
        price += f", {len(tariff.roaming)} prices abroad"
    return price


def _budget(budget: Budget, tariff: Tariff) -> str:
    caps = [] if budget.bytes_max is None else [size(budget.bytes_max)]
    if budget.money_max_milli is not None:
        caps.append(money(budget.money_max_milli, tariff.currency))
    text = f"at most {' and '.join(caps)} a {tariff.period.name.lower()}" if caps else "no cap"
    reserve = [size(budget.reserve_bytes)] if budget.reserve_bytes else []
    if budget.reserve_milli:
        reserve.append(money(budget.reserve_milli, tariff.currency))
    if reserve:
        text += f", of which {' and '.join(reserve)} for flash alone"
    shares = budget.shares
    if shares.priority or shares.normal or shares.bulk:
        text += f", kept {shares.priority}/{shares.normal}/{shares.bulk} % for priority/normal/bulk"
    if budget.bytes_max is not None and tariff.price_per_mb_milli:
        worst = max(0, budget.bytes_max - tariff.allowance_bytes) * tariff.price_per_mb_milli // 1_000_000
        if budget.money_max_milli is None:
            sessions = " and its sessions" if tariff.session_milli else ""
            text += f": {money(worst, tariff.currency)}{sessions} at the most"
    return text


def _pool(pool: Pool, tariff: Tariff) -> str:
    def amount(count: int) -> str:
        return money(count, tariff.currency) if pool.unit is Unit.MONEY else size(count)

    return f"a pool of {amount(pool.amount)}, {amount(pool.given)} of it given to {len(pool.grants)} trucks"
