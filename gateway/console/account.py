"""Signing in and out, and the reader's language."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from msgspec import Meta

from gateway.api.operations import Call
from gateway.api.problem import Problem
from gateway.api.shapes import Shape
from gateway.console.pages import View, form_of, page, see_other
from gateway.console.session import SignInForm, begin, check_origin, end, local_address
from gateway.console.words import LANGUAGE_COOKIE, NAMES

_YEAR_S = 365 * 86_400


class SignInQuery(Shape, frozen=True):
    """A one-time code that a command printed, and where to go on."""

    code: Annotated[str, Meta(max_length=128)] = ""
    next: Annotated[str, Meta(max_length=2_048)] = "/"


class LanguageForm(Shape, frozen=True):
    """The language wanted, and where to go on."""

    language: Annotated[str, Meta(max_length=8)]
    next: Annotated[str, Meta(max_length=2_048)] = "/"


@page("GET", "/signin", needs=None)
async def show_sign_in(call: Call, query: SignInQuery) -> View:
    """Show the form."""
    return _sign_in(call, code=query.code, next_address=query.next)


@page("POST", "/signin", needs=None)
async def sign_in(call: Call) -> View | web.Response:
    """Sign in; a token that does not hold shows the form again."""
    form = await form_of(call, SignInForm)
    try:
        return await begin(call, form)
    except Problem as problem:
        if problem.status != 403:
            raise
        return _sign_in(call, code="", next_address=form.next, problem=problem.detail)


@page("POST", "/signout")
async def sign_out(call: Call) -> web.Response:
    """Sign out."""
    return await end(call)


@page("POST", "/language", needs=None)
async def choose_language(call: Call) -> web.Response:
    """Keep the reader's language."""
    check_origin(call.request)
    form = await form_of(call, LanguageForm)
    response = see_other(local_address(form.next))
    if form.language in NAMES:
        response.set_cookie(LANGUAGE_COOKIE, form.language, max_age=_YEAR_S, path="/", samesite="Lax")
    return response


def _sign_in(call: Call, *, code: str, next_address: str, problem: str = "") -> View:
    values = {
        "code": code,
        "next": local_address(next_address),
        "problem": problem,
        "provider": call.api.services.sign_in is not None,
    }
    return View("signin.html", values, 403 if problem else 200)


PAGES = (show_sign_in, sign_in, sign_out, choose_language)
