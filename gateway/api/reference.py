"""The page at /v1/docs: every route on one plain page, rendered here, with no script and nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from typing import Any

from gateway.api.openapi import problems_of, roles_of
from gateway.api.operations import Operation

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8886; padding: 1rem 0; }
h3 { font: 600 1rem/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
h3 b { display: inline-block; min-width: 4.5rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .2rem .8rem .2rem 0; }
td { vertical-align: top; } code { font-size: .9em; } .roles { font-style: italic; }
"""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)


def render_reference(operations: Sequence[Operation], document: dict[str, Any]) -> str:
    """Return the page for the operations and their OpenAPI document."""
    info = document["info"]
    tags = list(dict.fromkeys(each.tag for each in operations))
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>",
        "<p>For programs: <a href=/v1/openapi.json>/v1/openapi.json</a> (OpenAPI 3.1).</p><nav><ul>",
        *(f"<li><a href='#{escape(tag)}'>{escape(tag)}</a></li>" for tag in tags),
        "</ul></nav>",
    ]
    for tag in tags:
        parts.append(f"<h2 id='{escape(tag)}'>{escape(tag)}</h2>")
        parts.extend(_section(each, document) for each in operations if each.tag == tag)
    parts.append("<h2>Bodies and answers</h2>")
    parts.extend(_struct(name, schema) for name, schema in document["components"]["schemas"].items())
    return "".join(parts)


def _section(operation: Operation, document: dict[str, Any]) -> str:
    described = document["paths"][operation.path][operation.method.lower()]
    roles = ", ".join(roles_of(operation)) or "nobody has to sign in"
    rows = "".join(
        f"<tr><td><code>{escape(each['name'])}</code><td>{each['in']}<td>{escape(_type(each['schema']))}"
        f"<td>{escape(each['description'])}"
        for each in described["parameters"]
    )
    table = f"<table><tr><th>parameter<th>in<th>type<th>meaning{rows}</table>" if rows else ""
    answer = _link(operation.answer_type.__name__) if operation.answer_type else ", ".join(operation.media)
    takes = ""
    if operation.consumes is not None:
        struct = operation.body_type
        name = _link(struct.__name__) if struct is not None and struct is not bytes else ""
        takes = f"<p>Takes {escape(operation.consumes)} {name}</p>"
    return (
        f"<section id='{escape(operation.name)}'><h3><b>{operation.method}</b> {escape(operation.path)}</h3>"
        f"<p>{escape(operation.summary)}.</p><p>{escape(operation.description)}</p>{table}{takes}"
        f"<p>Answers {operation.status}: {answer}; problems: {', '.join(map(str, problems_of(operation)))}</p>"
        f"<p class=roles>{escape(roles)}</p></section>"
    )


def _struct(name: str, schema: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code><td>{escape(_type(value))}<td>{escape(value.get('description', ''))}"
        for field, value in schema.get("properties", {}).items()
    )
    text = escape(schema.get("description", ""))
    return f"<section id='struct-{escape(name)}'><h3>{escape(name)}</h3><p>{text}</p><table>{rows}</table></section>"


def _link(name: str) -> str:
    return f"<a href='#struct-{escape(name)}'>{escape(name)}</a>"


def _type(schema: dict[str, Any]) -> str:
    """Return a field's type in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items') or {})}"
    return str(schema.get("format") or schema.get("type") or "any")
