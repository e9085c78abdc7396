"""Every error leaves as one shape and says nothing about the inside."""

import json

import msgspec
import pytest
from aiohttp import web

from gateway.api.problem import Problem, ProblemShape, from_http_exception, internal_error, problem_response


def test_a_problem_is_rfc_9457_json() -> None:
    response = problem_response(Problem(409, "go on from byte 7", offset=7))
    assert response.content_type == "application/problem+json"
    assert isinstance(response.body, bytes)
    assert json.loads(response.body) == {
        "type": "urn:digitruck:problem:conflict",
        "title": "Conflict",
        "status": 409,
        "detail": "go on from byte 7",
        "offset": 7,
    }


def test_an_internal_error_shows_a_reference_and_not_the_error() -> None:
    response = internal_error(RuntimeError("password=hunter2 /etc/shadow"), route="/v1/trucks")
    assert isinstance(response.body, bytes)
    assert b"hunter2" not in response.body
    assert b"shadow" not in response.body
    problem = msgspec.json.decode(response.body, type=ProblemShape)
    assert problem.status == 500
    assert problem.instance.startswith("urn:digitruck:error:")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (web.HTTPNotFound(text="/<script>"), 404),
        (web.HTTPMethodNotAllowed("PATCH", ["GET", "PUT"]), 405),
        (web.HTTPRequestEntityTooLarge(max_size=1, actual_size=2), 413),
        (web.HTTPMovedPermanently("https://elsewhere.example/"), 404),
    ],
)
def test_what_the_library_raises_is_reworded(error: web.HTTPException, status: int) -> None:
    problem = from_http_exception(error)
    response = problem_response(problem)
    assert response.status == status
    assert isinstance(response.body, bytes)
    assert b"<script>" not in response.body
    assert b"elsewhere" not in response.body


def test_method_not_allowed_keeps_the_list_of_methods() -> None:
    problem = from_http_exception(web.HTTPMethodNotAllowed("PATCH", ["GET", "PUT"]))
    assert set(problem.headers["Allow"].split(",")) == {"GET", "PUT"}
