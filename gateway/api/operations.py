"""One route, declared once: method, path, roles, what goes in, what comes out.

`operation` turns a handler into an `Operation` by its own annotations: a parameter `path`, `query` or `body` names the
struct that the request is checked against, the return annotation names the struct that is answered. The router
(`dispatch`) and the OpenAPI document (`openapi`) read the same declaration, so that they cannot disagree.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import msgspec
from aiohttp import web

from gateway.api.auth import Actor, Role

if TYPE_CHECKING:
    from gateway.api.context import Api

JSON = "application/json"
COSE = "application/cose"
OCTETS = "application/octet-stream"
Handler = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """One request as a handler sees it."""

    request: web.Request
    api: Api
    actor: Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A declared route. `needs` is None where nobody has to sign in."""

    name: str
    method: str
    path: str
    tag: str
    summary: str
    description: str
    needs: frozenset[Role] | None
    status: int
    statuses: tuple[int, ...]  # other good answers, without a body of their own
    media: tuple[str, ...]  # of the answer
    consumes: str | None
    streams: bool  # the handler reads the body, or writes the answer, at its own pace
    problems: tuple[int, ...]
    changes: bool  # something, which the store writes into the audit log in the same transaction
    path_type: type[msgspec.Struct] | None
    query_type: type[msgspec.Struct] | None
    body_type: type | None
    answer_type: type[msgspec.Struct] | None
    handler: Handler


def operation(
    method: str,
    path: str,
    *,
    tag: str,
    needs: frozenset[Role] | None,
    status: int = 200,
    statuses: tuple[int, ...] = (),
    media: tuple[str, ...] = (JSON,),
    consumes: str | None = None,
    streams: bool = False,
    problems: tuple[int, ...] = (),
    changes: bool | None = None,
) -> Callable[[Handler], Operation]:
    """Declare a route; the handler's docstring is its summary and description."""

    def declare(handler: Handler) -> Operation:
        hints = get_type_hints(handler, localns={"Call": Call})
        summary, _, description = (inspect.getdoc(handler) or "").partition("\n")
        body = hints.get("body")
        return Operation(
            name=handler.__name__,
            method=method,
            path=path,
            tag=tag,
            summary=summary.rstrip("."),
            description=description.strip(),
            needs=needs,
            status=status,
            statuses=statuses,
            media=media,
            consumes=consumes or (JSON if body is not None else None),
            streams=streams,
            problems=problems,
            changes=method in ("POST", "PUT", "DELETE") if changes is None else changes,
            path_type=hints.get("path"),
            query_type=hints.get("query"),
            body_type=body,
            answer_type=_struct_in(hints.get("return")),
            handler=handler,
        )

    return declare


def _struct_in(annotation: Any) -> type[msgspec.Struct] | None:
    """Return the struct in a return annotation such as `Samples | web.StreamResponse`."""
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, msgspec.Struct):
            return each
    return None
