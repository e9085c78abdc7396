"""`digitruck report`: the report in a terminal and as a signed file that a partner can check."""

from __future__ import annotations

import json
from pathlib import Path

from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import add_truck
from tests.gateway.running import RunningGateway


def test_a_report_is_written_signed_and_checked(trusted: RunningGateway, digitruck: Digitruck, tmp_path: Path) -> None:
    trusted.run(add_truck(trusted.fleet))
    assert "ke-arrow" in digitruck("report", "impact").out
    assert json.loads(digitruck("report", "impact", "--json").out)["total"]["trucks"] == 1
    digitruck("key", "new", "asha-ops", "--role", "operator")
    for form in ("pdf", "html", "csv", "json"):
        output = tmp_path / f"report.{form}"
        made = digitruck("report", "impact", "--format", form, "--output", str(output), "--key", "asha-ops")
        assert "signed as asha-ops" in made.out
        assert "as asha-ops signed it" in digitruck("report", "verify", str(output)).out
    output.write_bytes(output.read_bytes().replace(b"0", b"1", 1))
    changed = digitruck("report", "verify", str(output), ok=False)
    assert changed.code == 1
    assert "it was changed" in changed.err


def test_a_pdf_wants_a_file(trusted: RunningGateway, digitruck: Digitruck) -> None:
    ran = digitruck("report", "impact", "--format", "pdf", ok=False)
    assert ran.code == 2
    assert "--output" in ran.err
