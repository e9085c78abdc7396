"""What the client reads is what the gateway's API declares, field by field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway import answers, contentanswers, evidence, moneyanswers
from gateway.api import app as api_app
from gateway.api.problem import Problem, ProblemShape, problem_body
from gateway.api.stream import ChangeShape

SHAPES: dict[str, type[msgspec.Struct]] = {}
for _operation in api_app.OPERATIONS:
    _answer = _operation.answer_type
    if _answer is not None:
        SHAPES[f"{_operation.method} {_operation.path}"] = _answer

READ: dict[str, type[msgspec.Struct]] = {
    "GET /v1/trucks": answers.TruckPage,
    "GET /v1/trucks/{truck}": answers.TruckDetail,
    "DELETE /v1/trucks/{truck}": answers.TruckDetail,
    "POST /v1/enrolments": answers.EnrolmentCode,
    "GET /v1/trucks/{truck}/samples": answers.Samples,
    "GET /v1/trucks/{truck}/events": answers.EventPage,
    "GET /v1/trucks/{truck}/receipts": answers.ReceiptPage,
    "GET /v1/trucks/{truck}/coverage": answers.Coverage,
    "GET /v1/trucks/{truck}/verification": evidence.Verification,
    "GET /v1/trucks/{truck}/ledger": answers.LedgerPage,
    "GET /v1/ledger": answers.LedgerPage,
    "GET /v1/trucks/{truck}/budget": moneyanswers.Budget,
    "GET /v1/budgets": moneyanswers.BudgetPage,
    "POST /v1/trucks/{truck}/bills": moneyanswers.ReconciledBill,
    "GET /v1/trucks/{truck}/bills": moneyanswers.BillPage,
    "GET /v1/trucks/{truck}/account": moneyanswers.TruckAccount,
    "GET /v1/trucks/{truck}/history": moneyanswers.History,
    "GET /v1/pools": moneyanswers.PoolPage,
    "GET /v1/alarms": moneyanswers.AlarmPage,
    "POST /v1/alarms/{id}/acknowledge": moneyanswers.Alarm,
    "PUT /v1/documents": answers.DocumentRow,
    "GET /v1/documents": answers.DocumentPage,
    "GET /v1/trust": answers.Trust,
    "GET /v1/trucks/{truck}/config": answers.TruckConfig,
    "POST /v1/tokens": answers.NewToken,
    "GET /v1/audit": answers.AuditPage,
    "GET /v1/audit/check": answers.AuditCheck,
    "GET /v1/bundles": contentanswers.BundlePage,
    "GET /v1/bundles/{name}/{version}": contentanswers.BundleDetail,
    "PUT /v1/blobs/{digest}": contentanswers.Upload,
    "POST /v1/rollouts": answers.DocumentRow,
    "POST /v1/rollouts/{id}/rollback": answers.DocumentRow,
    "POST /v1/rollouts/{id}/{action}": contentanswers.Rollout,
    "GET /v1/rollouts": contentanswers.RolloutPage,
    "GET /v1/rollouts/{id}": contentanswers.RolloutDetail,
    "POST /v1/quotes": contentanswers.Quote,
}


def outline(kind: Any) -> Any:
    """Return the fields of a struct with their types, inner structs opened, bounds and docs left out."""
    info = msgspec.inspect.type_info(kind)
    return _outlined(info)


def _outlined(info: msgspec.inspect.Type) -> Any:
    match info:
        case msgspec.inspect.Metadata(type=inner):
            return _outlined(inner)
        case msgspec.inspect.StructType(fields=fields):
            return {field.encode_name: (_outlined(field.type), field.required) for field in fields}
        case msgspec.inspect.ListType(item_type=inner) | msgspec.inspect.VarTupleType(item_type=inner):
            return [_outlined(inner)]
        case msgspec.inspect.UnionType(types=types):
            return sorted(repr(_outlined(each)) for each in types)
        case msgspec.inspect.DictType(value_type=inner):
            return {"*": _outlined(inner)}
        case msgspec.inspect.TupleType(item_types=types):
            return [_outlined(each) for each in types]
        case msgspec.inspect.LiteralType():
            return "StrType"
    return type(info).__name__


@pytest.mark.parametrize("route", READ)
def test_every_answer_is_read_as_the_gateway_declares_it(route: str) -> None:
    assert outline(READ[route]) == outline(SHAPES[route])


def test_a_change_is_read_as_the_stream_declares_it() -> None:
    theirs = outline(ChangeShape)
    assert {name: kind for name, kind in outline(answers.Change).items() if name != "id"} == theirs


def test_a_problem_is_read_as_the_api_writes_it() -> None:
    assert outline(answers.Problem).keys() == outline(ProblemShape).keys()
    written = problem_body(Problem(409, "go on from byte 7", offset=7), instance="urn:x")
    read = msgspec.json.decode(written, type=answers.Problem)
    assert (read.status, read.offset, read.instance) == (409, 7, "urn:x")
    assert read.kind == "urn:digitruck:problem:conflict"
