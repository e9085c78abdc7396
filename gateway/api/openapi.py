"""The OpenAPI 3.1 document, made from the declared operations and their structs (JSON Schema 2020-12 by msgspec)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from gateway.api.auth import REQUEST_HEADER, Role, session_cookie
from gateway.api.operations import JSON, Operation
from gateway.api.problem import MEDIA_TYPE, ProblemShape

Json = dict[str, Any]
_REF = "#/components/schemas/{name}"
_ALWAYS = (429, 500, 503)


def build_openapi(operations: Sequence[Operation], *, version: str) -> Json:
    """Return the document as JSON values."""
    structs = [ProblemShape, *_structs(operations)]
    _, schemas = msgspec.json.schema_components(structs, ref_template=_REF)
    inputs = {_name(each) for op in operations for each in (op.path_type, op.query_type) if each is not None}
    paths: Json = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _describe(each, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Digitruck fleet gateway",
            "version": version,
            "description": "Trucks, telemetry, signed documents, content bundles and the money that their bytes cost. "
            "Sign in with a bearer token, or a browser at /v1/session/login; errors are problem details (RFC 9457); "
            "listings take `limit` and `after` and name the next page in `next` and in a `Link` header (rel=next).",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            # Structs of paths and queries only show up as parameters.
            "schemas": {name: schema for name, schema in sorted(schemas.items()) if name not in inputs},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "dt_…"},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": session_cookie(secure=False),
                    "description": "Of a browser, from /v1/session/login; over HTTPS its name begins with `__Host-`. "
                    f"Requests that change something also need the header {REQUEST_HEADER}.",
                },
            },
        },
    }


def roles_of(operation: Operation) -> list[str]:
    """Return the roles that may use an operation, weakest first; empty where nobody has to sign in."""
    return [] if operation.needs is None else [role.value for role in Role if role.may(operation.needs)]


def problems_of(operation: Operation) -> list[int]:
    """Return the error statuses that an operation may answer."""
    found = {400, *_ALWAYS, *operation.problems, *([operation.status] if operation.status >= 400 else [])}
    if operation.needs is not None:
        found |= {401, 403}
    if operation.path_type is not None:
        found.add(404)
    if operation.consumes is not None:
        found |= {408, 413, 415, 417}
    return sorted(found)


def _structs(operations: Iterable[Operation]) -> list[type[msgspec.Struct]]:
    found: dict[str, type[msgspec.Struct]] = {}
    for op in operations:
        for each in (op.path_type, op.query_type, op.body_type, op.answer_type):
            if isinstance(each, type) and issubclass(each, msgspec.Struct):
                found[_name(each)] = each
    return list(found.values())


def _describe(operation: Operation, schemas: Json) -> Json:
    described: Json = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "security": [] if operation.needs is None else [{"token": []}, {"session": []}],
        "x-roles": roles_of(operation),
        "parameters": [
            *_parameters(operation.path_type, "path", schemas),
            *_parameters(operation.query_type, "query", schemas),
        ],
        "responses": _responses(operation),
    }
    if operation.consumes is not None:
        described["requestBody"] = {
            "required": True,
            "content": {operation.consumes: {"schema": _body_schema(operation)}},
        }
    return described


def _responses(operation: Operation) -> Json:
    responses: Json = {}
    if operation.status < 400:  # what is not there yet answers a problem only
        answer = _reference(operation.answer_type)
        good: Json = {"description": HTTPStatus(operation.status).phrase}
        if operation.method != "HEAD" and operation.media:
            good["content"] = {
                media: {"schema": answer} if media == JSON and answer is not None else {} for media in operation.media
            }
        responses[str(operation.status)] = good
    for status in operation.statuses:
        responses[str(status)] = {"description": HTTPStatus(status).phrase}
    problem = {MEDIA_TYPE: {"schema": _reference(ProblemShape)}}
    for status in problems_of(operation):
        described: Json = {"description": HTTPStatus(status).phrase}
        if operation.method != "HEAD":
            described["content"] = problem
        responses[str(status)] = described
    return responses


def _parameters(struct: type[msgspec.Struct] | None, place: str, schemas: Json) -> list[Json]:
    if struct is None:
        return []
    schema = schemas[_name(struct)]
    return [
        {
            "name": name,
            "in": place,
            "required": place == "path" or name in schema.get("required", ()),
            "description": _description(field),
            "schema": _without_null(field),
        }
        for name, field in schema["properties"].items()
    ]


def _description(field: Json) -> str:
    own = field.get("description")
    if own is None:
        own = next((each["description"] for each in field.get("anyOf", ()) if "description" in each), "")
    return str(own)


def _without_null(field: Json) -> Json:
    """Return a field's schema as a parameter's: absence is left out, not null."""
    kept = {key: value for key, value in field.items() if key not in ("anyOf", "description", "default")}
    options = [each for each in field.get("anyOf", ()) if each != {"type": "null"}]
    if len(options) == 1:
        kept |= {key: value for key, value in options[0].items() if key != "description"}
    elif options:
        kept["anyOf"] = options
    if field.get("default") is not None:
        kept["default"] = field["default"]
    return kept


def _body_schema(operation: Operation) -> Json:
    reference = _reference(operation.body_type)
    return {} if reference is None else reference  # bytes: any


def _reference(struct: type | None) -> Json | None:
    if struct is None or not issubclass(struct, msgspec.Struct):
        return None
    return {"$ref": _REF.format(name=_name(struct))}


def _name(struct: type) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", struct.__name__)
