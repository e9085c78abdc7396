"""Configuration of a truck or a group: a form of every setting, what would change, its signature, and its history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from gateway.api import configs, documents
from gateway.api.auth import OPERATOR
from gateway.api.documents import read_stored
from gateway.api.operations import Call
from gateway.api.problem import Problem
from gateway.api.shapes import Shape, TruckPath
from gateway.api.trucks import known_truck
from gateway.cli.output import CommandError
from gateway.cli.settings import Settings, apply_pairs, differences, make_config, settings_of, to_toml
from gateway.console.pages import View, ask, ask_or_none, page
from gateway.console.proposals import Proposal, view_of
from protocol.documents import Addressee, Config
from protocol.wire import Name
from store.fleet.records import DocumentRecord

_YEAR_S = 365 * 86_400
_FORM_FIELDS_MAX = 512
_HISTORY = 20
_CONFIRM_S = (600, 3_600, 86_400)


class GroupPath(Shape, frozen=True):
    """A group in an address."""

    group: Name


@dataclass(frozen=True, slots=True)
class Field:
    """One line of the form: a setting, what it is, in which unit, and its value now ("" for the truck's own)."""

    key: str
    label: str
    unit: str
    value: str
    kind: Annotated[str, Meta(description="an HTML input's type")] = "number"


@page("GET", "/trucks/{truck}/config")
async def show_truck_config(call: Call, path: TruckPath) -> View:
    """Show a truck's configuration."""
    await known_truck(call, path.truck)
    return await _show(call, Addressee((path.truck,)))


@page("GET", "/groups/{group}/config")
async def show_group_config(call: Call, path: GroupPath) -> View:
    """Show a group's configuration."""
    return await _show(call, Addressee((), path.group))


@page("POST", "/trucks/{truck}/config", needs=OPERATOR)
async def propose_truck_config(call: Call, path: TruckPath) -> View:
    """Propose a truck's next configuration."""
    await known_truck(call, path.truck)
    return await _propose(call, Addressee((path.truck,)))


@page("POST", "/groups/{group}/config", needs=OPERATOR)
async def propose_group_config(call: Call, path: GroupPath) -> View:
    """Propose a group's next configuration."""
    return await _propose(call, Addressee((), path.group))


async def _show(call: Call, to: Addressee, problem: str = "") -> View:
    base = await _base(call, to)
    settings = settings_of(None if base is None else await read_stored(base, Config))
    history = await ask(
        call, documents.list_documents, query=documents.DocumentsQuery(kind="config", name=_stream(to), limit=_HISTORY)
    )
    state = None
    if to.trucks:
        state = await ask_or_none(call, configs.get_config, path=TruckPath(truck=to.trucks[0]))
    return View(
        "config.html",
        {
            "title": _title(to),
            "to": to,
            "address": _address(to),
            "fields": await _fields(call, to, settings),
            "toml": to_toml(settings),
            "state": state,
            "history": history.items,
            "confirm_s": _CONFIRM_S,
            "problem": problem,
        },
        400 if problem else 200,
    )


async def _propose(call: Call, to: Addressee) -> View:
    form = await call.request.post()
    if len(form) > _FORM_FIELDS_MAX:
        raise Problem(400, "the form has too many fields")
    base = await _base(call, to)
    old = settings_of(None if base is None else await read_stored(base, Config))
    old.pop("confirm_within_s", None)
    now_s = call.api.services.now_ms() // 1000
    try:
        new = apply_pairs(old, _pairs(form, old))
        pairs = _changes(old, new)
        confirm = form.get("confirm_within_s", "")
        if isinstance(confirm, str) and confirm.isdecimal() and len(confirm) < 8:
            new["confirm_within_s"] = int(confirm)
        config = make_config(
            new,
            addressee=to,
            version=await _newest_version(call, to) + 1,
            issued_s=now_s,
            expires_s=now_s + _YEAR_S,
        )
    except CommandError as error:
        return await _show(call, to, str(error))
    if not pairs:
        return await _show(call, to, "nothing would change")
    within = f" --confirm-within {new['confirm_within_s']}s" if "confirm_within_s" in new else ""
    who = to.trucks[0] if to.trucks else f"--group {to.group}"
    return view_of(
        Proposal(
            document=config,
            title=_title(to),
            differences=differences(old, new),
            command=f"digitruck config set {who} {' '.join(pairs)}{within} --key YOUR-KEY",
            put="/v1/documents",
            done=_address(to),
        )
    )


def _pairs(form: Mapping[str, object], old: Settings) -> list[str]:
    """Return what a form says as `KEY=VALUE` pairs; an empty field takes away what is set."""
    pairs = []
    for name, value in form.items():
        if not isinstance(value, str) or not name.startswith("set:"):
            continue
        key, text = name.removeprefix("set:"), value.strip()
        if text or key in old:
            pairs.append(f"{key}={text}")
    extra = form.get("more", "")
    if isinstance(extra, str):
        pairs += [line.strip() for line in extra.splitlines() if line.strip()]
    return pairs


def _changes(old: Settings, new: Settings) -> list[str]:
    found = [f"{key}={value}" for key, value in sorted(new.items()) if old.get(key) != value]
    return found + [f"{key}=" for key in sorted(old) if key not in new]


async def _fields(call: Call, to: Addressee, settings: Settings) -> list[Field]:
    """Return the form: what is set, and what the truck shows that could be."""
    fields = [Field("batch_age_s", "A batch waits at most", "s", _text(settings, "batch_age_s"))]
    collectors, links = _names(settings, "collectors"), _names(settings, "links")
    if to.trucks:
        values = await call.api.fleet.latest_values(truck=to.trucks[0])
        collectors |= {each.channel.partition(".")[0] for each in values if "." in each.channel}
        sums = await call.api.fleet.ledger(to.trucks[0])
        links |= {each.link for each in sums if each.link}
    for name in sorted(collectors):
        key = f"collectors.{name}.period_s"
        fields.append(Field(key, f"{name}: one row every", "s", _text(settings, key)))
    for name in sorted(links):
        for part, label, unit, kind in (
            ("month_bytes_max", "cap a month", "B", "text"),
            ("reserve_bytes", "of it for flash alone", "B", "number"),
            ("price_per_mb_milli", "price of a MB", "1/1000", "number"),
            ("currency", "currency", "", "text"),
        ):
            key = f"links.{name}.{part}"
            fields.append(Field(key, f"{name}: {label}", unit, _text(settings, key), kind))
    known = {each.key for each in fields} | {"confirm_within_s"}
    fields += [Field(key, key, "", _text(settings, key), "text") for key in sorted(settings) if key not in known]
    return fields


def _names(settings: Settings, table: str) -> set[str]:
    return {key.split(".")[1] for key in settings if key.startswith(f"{table}.")}


def _text(settings: Settings, key: str) -> str:
    value = settings.get(key, "")
    return str(value).lower() if isinstance(value, bool) else str(value)


async def _base(call: Call, to: Addressee) -> DocumentRecord | None:
    """Return the configuration in force: a truck's first one by name begins with its group's."""
    if to.trucks:
        truck = await known_truck(call, to.trucks[0])
        return await call.api.fleet.newest_config(truck.name, truck.group)
    found = await _stream_of(call, to)
    return None if not found else await call.api.fleet.document(bytes.fromhex(found[0].digest))


async def _newest_version(call: Call, to: Addressee) -> int:
    return max((each.version for each in await _stream_of(call, to)), default=0)


async def _stream_of(call: Call, to: Addressee) -> list[documents.DocumentShape]:
    query = documents.DocumentsQuery(kind="config", name=_stream(to), limit=500)
    found: list[documents.DocumentShape] = (await ask(call, documents.list_documents, query=query)).items
    return sorted(found, key=lambda each: -each.version)


def _stream(to: Addressee) -> str:
    return f"group:{to.group}" if to.group is not None else ",".join(sorted(to.trucks))


def _title(to: Addressee) -> str:
    return f"group {to.group}" if to.group is not None else ", ".join(to.trucks)


def _address(to: Addressee) -> str:
    return f"/groups/{to.group}/config" if to.group is not None else f"/trucks/{to.trucks[0]}/config"


PAGES = (show_truck_config, show_group_config, propose_truck_config, propose_group_config)
