"""Requests made up from the OpenAPI document, right and wrong ones, from everybody: no answer is a surprise.

schemathesis makes the requests, from the document alone, and compares each answer with what the document says of it:
status, media type, headers, schema. Each operation is asked as a stranger and in every role in turn. The seed is fixed;
a request that fails is printed as a curl command and belongs into the test of its route.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.api.app import OPERATIONS
from gateway.api.auth import Role
from gateway.api.limits import ApiLimits
from gateway.api.openapi import build_openapi
from gateway.api.operations import Operation
from protocol import cose
from tests.gateway.api.conftest import FILES, TOKENS
from tests.gateway.running import RunningGateway, running_gateway

EXAMPLES = 15
LIMITS = ApiLimits(address_rate=1e6, address_burst=1e6, token_rate=1e6, token_burst=1e6, wrong_token_cost=0.0)
BLOB = cose.digest(FILES["index.html"]).hex()
# What the database of the tests holds, so that not every address leads to a 404.
KNOWN = {"truck": "ke-arrow", "digest": BLOB, "name": "maths", "version": "v1", "action": "pause"}
# Never ends by itself: test_stream reads it.
ASKED = [each for each in OPERATIONS if each.name != "get_stream"]


@schemathesis.serializer("application/cose")
def _raw(_: object, value: Any) -> Any:
    return {"data": value if isinstance(value, bytes) else json.dumps(value, default=str).encode()}


@pytest.fixture(scope="module")
def gateway(full_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway with a bit of everything in it and no limit on requests."""
    folder = tmp_path_factory.mktemp("asked") / "gateway"
    with running_gateway(full_folder / "fleet.db", folder, LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def document(gateway: RunningGateway) -> Any:
    """The OpenAPI document as schemathesis reads it, from the gateway itself."""
    read = requests.get(gateway.url + "/v1/openapi.json", timeout=10).json()
    assert read["paths"] == json.loads(json.dumps(build_openapi(OPERATIONS, version="")["paths"]))
    return schemathesis.openapi.from_dict(read)


@pytest.mark.parametrize("operation", ASKED, ids=lambda each: each.name)
def test_every_answer_is_one_that_the_document_names(
    gateway: RunningGateway, document: Any, operation: Operation
) -> None:
    described = document[operation.path][operation.method]
    known = {name: value for name, value in KNOWN.items() if f"{{{name}}}" in operation.path}
    requests_made = st.one_of(
        described.as_strategy(GenerationMode.POSITIVE, path_parameters=known),
        described.as_strategy(GenerationMode.POSITIVE),
        *([described.as_strategy(GenerationMode.NEGATIVE)] if _may_be_wrong(operation) else []),
    )
    checks = [
        status_code_conformance,
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        negative_data_rejection,
        *([not_a_server_error] if operation.status < 500 else []),
    ]
    senders = cycle([*Role, None])
    with requests.Session() as session:

        @seed(9457)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=requests_made)
        def ask(case: Any) -> None:
            role = next(senders)
            headers = {} if role is None else {"Authorization": f"Bearer {TOKENS[role]}"}
            case.call_and_validate(
                base_url=gateway.url, session=session, headers=headers, checks=checks, timeout=10, allow_redirects=False
            )

        ask()


def _may_be_wrong(operation: Operation) -> bool:
    return operation.path_type is not None or operation.query_type is not None or operation.body_type is not None
