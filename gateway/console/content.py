"""Bundles and rollouts: what was published, which truck should have what, and how far each of them is."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta

from gateway.api import bundles, quotes, rollouts
from gateway.api.auth import OPERATOR
from gateway.api.operations import Call
from gateway.api.problem import Problem
from gateway.api.shapes import Cursor, PageQuery, Shape
from gateway.console.pages import View, ask, form_of, page, see_other
from gateway.console.proposals import Proposal, view_of
from protocol.documents import Addressee, Rollout
from protocol.numbers import DocumentKind, Precedence
from protocol.wire import Name

_YEAR_S = 365 * 86_400
_TRUCKS_CHARS_MAX = 32_000
_STOP_AT_PERCENT = 20  # with stages, as the command has it


class ListQuery(Shape, frozen=True):
    """Where the page begins."""

    after: Cursor | None = None


class NewRolloutQuery(Shape, frozen=True):
    """What the form begins with."""

    bundle: Annotated[str, Meta(max_length=64)] = ""
    trucks: Annotated[str, Meta(max_length=_TRUCKS_CHARS_MAX)] = ""
    group: Annotated[str, Meta(max_length=31)] = ""


class RolloutForm(Shape, frozen=True):
    """Which bundle (`name@version`) for which trucks (by name) or which group, how urgent."""

    bundle: Annotated[str, Meta(max_length=64)]
    trucks: Annotated[str, Meta(max_length=_TRUCKS_CHARS_MAX)] = ""
    group: Name | None = None
    precedence: Literal["flash", "priority", "normal", "bulk"] = "bulk"
    stages: Annotated[str, Meta(pattern=r"^[0-9%, ]{0,64}$")] = ""
    stop_at: Annotated[int, Meta(ge=1, le=100)] | None = None
    deadline: Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")] | None = None
    accept_cost: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$")] = "USD"
    step: Literal["quote", "sign"] = "quote"

    def shares(self) -> tuple[int, ...]:
        """Return the percent of the stages before the last; raise a 400 `Problem`."""
        shares = tuple(int(each) for each in re.findall(r"[0-9]{1,3}", self.stages))
        if list(shares) != sorted(set(shares)) or any(not 1 <= each <= 100 for each in shares):
            raise Problem(400, "stages are ascending percentages, such as 10%, 50%, 100%")
        return tuple(each for each in shares if each < 100)

    def deadline_s(self) -> int | None:
        """Return the end of the day of the deadline (UTC, Unix s); raise a 400 `Problem`."""
        if self.deadline is None:
            return None
        try:
            return round(datetime.fromisoformat(self.deadline).replace(tzinfo=UTC, hour=23, minute=59).timestamp())
        except ValueError as error:
            raise Problem(400, "the deadline is no date") from error

    def options(self) -> str:
        """Return the command's options that say the same."""
        said = [f"--precedence {self.precedence}"]
        if shares := self.shares():
            said.append(f"--stages {','.join(f'{each}%' for each in (*shares, 100))}")
        if self.stop_at is not None:
            said.append(f"--stop-at {self.stop_at}%")
        if self.deadline is not None:
            said.append(f"--deadline {self.deadline}")
        if self.accept_cost is not None:
            said.append(f"--accept-cost {self.accept_cost:g}{self.currency}")
        return " ".join(said)


@page("GET", "/bundles")
async def show_bundles(call: Call, query: ListQuery) -> View:
    """List bundle versions."""
    found = await ask(call, bundles.list_bundles, query=PageQuery(after=query.after))
    return View("bundles.html", {"found": found})


@page("GET", "/bundles/{name}/{version}")
async def show_bundle(call: Call, path: bundles.BundlePath, query: ListQuery) -> View:
    """Show one version and its files."""
    found = await ask(call, bundles.get_bundle, path=path, query=bundles.FilesQuery(after=query.after))
    return View("bundle.html", {"bundle": found})


@page("GET", "/rollouts")
async def show_rollouts(call: Call, query: ListQuery) -> View:
    """List rollouts."""
    found = await ask(call, rollouts.list_rollouts, query=PageQuery(after=query.after))
    return View("rollouts.html", {"found": found})


@page("GET", "/rollouts/new", needs=OPERATOR)
async def new_rollout(call: Call, query: NewRolloutQuery) -> View:
    """Show the form of a new rollout."""
    return await _form(call, RolloutForm(bundle=query.bundle, trucks=query.trucks, group=query.group or None))


@page("POST", "/rollouts/new", needs=OPERATOR)
async def propose_rollout(call: Call) -> View:
    """Show what a rollout would cost, then propose it for signature."""
    form = await form_of(call, RolloutForm)
    to = _addressee(form)
    name, _, version = form.bundle.partition("@")
    record = await bundles.known_bundle(call, name, version)
    if form.step == "quote":
        quoted = await ask(
            call,
            quotes.create_quote,
            body=quotes.QuoteRequest(bundle=name, version=version, trucks=list(to.trucks) or None, group=to.group),
        )
        return await _form(call, form, quoted)
    deadline_s = form.deadline_s()
    now_s = call.api.services.now_ms() // 1000
    if deadline_s is not None and deadline_s <= now_s:
        raise Problem(400, "the deadline is over already")
    document = Rollout(
        document=DocumentKind.ROLLOUT,
        version=await _next_version(call, name),
        issued_s=now_s,
        expires_s=now_s + _YEAR_S,
        addressee=to,
        bundle=name,
        manifest=record.manifest,
        precedence=Precedence[form.precedence.upper()],
        stages=form.shares(),
        stop_at_percent=form.stop_at or (_STOP_AT_PERCENT if form.shares() else None),
        deadline_s=deadline_s,
        cost_milli_max=None if form.accept_cost is None else round(form.accept_cost * 1000),
        currency=form.currency,
    )
    who = f"--group {to.group}" if to.group else f"--trucks {','.join(to.trucks)}"
    return view_of(
        Proposal(
            document=document,
            title=f"{name} {version}",
            differences=[f"+ {name} {version}: {to.group or ', '.join(to.trucks)}"],
            command=f"digitruck rollout create {form.bundle} {who} {form.options()} --key YOUR-KEY",
            put="/v1/rollouts",
            done="/rollouts",
        )
    )


@page("GET", "/rollouts/{id}")
async def show_rollout(call: Call, path: rollouts.RolloutPath, query: ListQuery) -> View:
    """Show a rollout and how far each truck is."""
    found = await ask(call, rollouts.get_rollout, path=path, query=PageQuery(after=query.after))
    spent: dict[str, int] = {}
    for each in found.items:
        if each.money_milli is not None:
            spent[each.currency] = spent.get(each.currency, 0) + each.money_milli
    return View("rollout.html", {"rollout": found, "spent": spent})


@page("POST", "/rollouts/{id}/rollback", needs=OPERATOR)
async def propose_rollback(call: Call, path: rollouts.RolloutPath) -> View:
    """Propose the rollout that takes this one back: the version before it, or none."""
    found = await ask(call, rollouts.get_rollout, path=path, query=PageQuery(limit=1))
    record = await call.api.fleet.document(bytes.fromhex(path.id))
    if record is None:
        raise Problem(404, "no rollout of that id is here")
    before = call.api.services.rollouts.read(record)
    manifest = await _earlier(call, found)
    bundle = None if manifest is None else await call.api.fleet.bundle_of_manifest(manifest)
    now_s = call.api.services.now_ms() // 1000
    document = Rollout(
        document=DocumentKind.ROLLOUT,
        version=await _next_version(call, before.bundle),
        issued_s=now_s,
        expires_s=now_s + _YEAR_S,
        addressee=before.addressee,
        bundle=before.bundle,
        manifest=manifest,
        precedence=before.precedence,
    )
    return view_of(
        Proposal(
            document=document,
            title=before.bundle,
            differences=[
                f"- {before.bundle} {found.version or ''}".rstrip(),
                *([] if bundle is None else [f"+ {bundle.name} {bundle.label}"]),
            ],
            command=f"digitruck rollout rollback {path.id[:12]} --key YOUR-KEY",
            put=f"/v1/rollouts/{path.id}/rollback",
            done="/rollouts",
        )
    )


@page("POST", "/rollouts/{id}/{action}", needs=OPERATOR)
async def act(call: Call, path: rollouts.RolloutActionPath) -> web.Response:
    """Pause, resume or abort."""
    await ask(call, rollouts.act_on_rollout, path=path)
    return see_other(f"/rollouts/{path.id}")


async def _next_version(call: Call, bundle: str) -> int:
    stored = await call.api.fleet.documents(kind=DocumentKind.ROLLOUT, limit=1_000)
    return 1 + max((each.version for each in stored if each.bundle == bundle), default=0)


async def _earlier(call: Call, found: rollouts.RolloutDetail) -> bytes | None:
    """Return the manifest of the rollout of the same bundle and trucks that came before, and was not taken back."""
    listed = (await ask(call, rollouts.list_rollouts, query=PageQuery(limit=500))).items
    same = [
        each
        for each in listed
        if each.document.name == found.document.name
        and each.document.version < found.document.version
        and each.state != "aborted"
        and each.manifest != found.manifest
    ]
    newest = max(same, key=lambda each: each.document.version, default=None)
    return None if newest is None or newest.manifest is None else bytes.fromhex(newest.manifest)


async def _form(call: Call, form: RolloutForm, quoted: object = None) -> View:
    published = (await ask(call, bundles.list_bundles, query=PageQuery(limit=500))).items
    trucks = [each for each in await call.api.fleet.trucks(limit=500) if each.revoked_ms is None]
    return View(
        "rollout_new.html",
        {
            "form": form,
            "published": sorted(published, key=lambda each: (each.name, -each.number)),
            "trucks": trucks,
            "groups": sorted({each.group for each in trucks}),
            "quoted": quoted,
        },
    )


def _addressee(form: RolloutForm) -> Addressee:
    names = tuple(sorted({each for each in form.trucks.replace(",", " ").split() if each}))
    if bool(names) == (form.group is not None):
        raise Problem(400, "choose either trucks or a group")
    try:
        return Addressee(names, form.group)
    except ValueError as error:
        raise Problem(400, str(error)) from error


PAGES = (
    show_bundles,
    show_bundle,
    show_rollouts,
    new_rollout,
    propose_rollout,
    show_rollout,
    propose_rollback,
    act,
)
