"""Bundles and rollouts: what was published, which truck should have what, and how far each of them is."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gateway.api import bundles, quotes, rollouts
from gateway.api.auth import OPERATOR
from gateway.api.documents import read_stored
from gateway.api.operations import Call
from gateway.api.problem import Problem
from gateway.api.shapes import Cursor, PageQuery, Shape
from gateway.console.pages import View, ask, form_of, page
from gateway.console.proposals import Proposal, view_of
from protocol.documents import Addressee, Rollout
from protocol.numbers import DocumentKind, Precedence
from protocol.wire import Name

_YEAR_S = 365 * 86_400
_TRUCKS_CHARS_MAX = 32_000


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
    step: Literal["quote", "sign"] = "quote"


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
    stored = await call.api.fleet.documents(kind=DocumentKind.ROLLOUT, limit=500)
    now_s = call.api.services.now_ms() // 1000
    document = Rollout(
        document=DocumentKind.ROLLOUT,
        version=1 + max((each.version for each in stored if each.bundle == name), default=0),
        issued_s=now_s,
        expires_s=now_s + _YEAR_S,
        addressee=to,
        bundle=name,
        manifest=record.manifest,
        precedence=Precedence[form.precedence.upper()],
    )
    who = f"--group {to.group}" if to.group else f"--trucks {','.join(to.trucks)}"
    return view_of(
        Proposal(
            document=document,
            title=f"{name} {version}",
            differences=[f"+ {name} {version} ({form.precedence}): {to.group or ', '.join(to.trucks)}"],
            command=f"digitruck rollout create {form.bundle} {who} --precedence {form.precedence} --key YOUR-KEY",
            put="/v1/rollouts",
            done="/rollouts",
        )
    )


@page("GET", "/rollouts/{id}")
async def show_rollout(call: Call, path: rollouts.RolloutPath, query: ListQuery) -> View:
    """Show a rollout and how far each truck is."""
    found = await ask(call, rollouts.get_rollout, path=path, query=PageQuery(after=query.after))
    counts: dict[str, int] = {}
    for each in found.items:
        counts[each.state] = counts.get(each.state, 0) + 1
    record = await call.api.fleet.document(bytes.fromhex(path.id))
    document = None if record is None else await read_stored(record, Rollout)
    return View("rollout.html", {"rollout": found, "counts": counts, "document": document})


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


PAGES = (show_bundles, show_bundle, show_rollouts, new_rollout, propose_rollout, show_rollout)
