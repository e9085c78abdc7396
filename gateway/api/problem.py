"""Errors as problem details (RFC 9457): one shape for every refusal, and never what happened inside.

`type` is a URN of ours, so that a program can tell problems apart without reading prose. A detail is written for the
person who sent the request; it never repeats the request's path or headers, and never carries a stack, a query or a
file name. What went wrong inside is logged under the reference that the answer's `instance` names.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
import structlog
from aiohttp import web

MEDIA_TYPE = "application/problem+json"
_TYPE = "urn:digitruck:problem:"
_log = structlog.get_logger(__name__)

_KINDS = {
    400: "bad-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    408: "body-too-slow",
    409: "conflict",
    411: "length-required",
    412: "precondition-failed",
    413: "too-large",
    415: "unsupported-media-type",
    416: "range-not-satisfiable",
    417: "expectation-failed",
    422: "refused",
    429: "too-many-requests",
    500: "internal",
    501: "not-implemented",
    503: "unavailable",
    507: "storage-full",
}


class ProblemShape(msgspec.Struct, frozen=True, omit_defaults=True, rename={"kind": "type"}):
    """What an error's body says. `offset` is there only when an upload should go on from another byte."""

    kind: str
    title: str
    status: int
    detail: str = ""
    instance: str = ""
    offset: int | None = None


class Problem(Exception):
    """A refusal that the client gets to see. `detail` says what is wrong and what to do next."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
        offset: int | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind or _KINDS.get(status, "other")
        self.headers = dict(headers or {})
        self.offset = offset
        self.close = close  # the rest of the body will not be read


def problem_body(problem: Problem, *, instance: str = "") -> bytes:
    """Return the JSON of a problem."""
    return msgspec.json.encode(
        ProblemShape(
            kind=_TYPE + problem.kind,
            title=HTTPStatus(problem.status).phrase,
            status=problem.status,
            detail=problem.detail,
            instance=instance,
            offset=problem.offset,
        )
    )


def problem_response(problem: Problem, *, instance: str = "") -> web.Response:
    """Return the answer that carries a problem."""
    response = web.Response(
        status=problem.status,
        body=problem_body(problem, instance=instance),
        content_type=MEDIA_TYPE,
        headers=problem.headers,
    )
    if problem.close:
        response.force_close()
    return response


def from_http_exception(error: web.HTTPException) -> Problem:
    """Return the problem for what the HTTP library itself refuses or redirects."""
    status = error.status if error.status >= 400 else 404
    details = {
        404: "there is nothing at this address; see /v1/docs",
        405: "this address does not take that method; the Allow header names those it takes",
        413: "the request is larger than this address takes",
        417: "the only expectation that is understood is 100-continue",
    }
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return Problem(status, details.get(status, HTTPStatus(status).phrase), headers=headers, close=status == 413)


def internal_error(error: BaseException, *, route: str) -> web.Response:
    """Log an error that is our fault and return an answer that only names the log entry."""
    reference = secrets.token_hex(8)
    _log.error("api.internal_error", route=route, reference=reference, exc_info=error)
    problem = Problem(500, "something went wrong here; the gateway's log has it under the reference in `instance`")
    return problem_response(problem, instance=f"urn:digitruck:error:{reference}")
