"""`digitruck-edge schema` prints what the contract names, and fails in one line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge.schema_cli import schema_group
from protocol.schema import decode_schema

TEXT = "t,volt,amps\n1,100,10\n" + "".join(
    f"{1_780_272_000 + 60 * at},{5000 + at * at % 17},{at % 5}\n" for at in range(150)
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(TEXT)
    return path


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(schema_group, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_measure_prints_the_keys_of_the_contract(trace: Path) -> None:
    code, out, _ = run("measure", trace, "--rows", 60, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["rows"] == 150
    assert answer["round_trip"] is True
    assert 0 < answer["body_bytes_per_row"] < answer["wire_bytes_per_row"] - 177 / 60 + 0.01


def test_measure_speaks_to_people_too(trace: Path) -> None:
    code, out, _ = run("measure", trace)
    assert code == 0
    assert "B a row" in out
    assert "exact" in out


def test_a_suggested_schema_can_be_kept_and_measured(trace: Path, tmp_path: Path) -> None:
    kept = tmp_path / "trace.schema"
    code, out, _ = run("suggest", trace, "--out", kept)
    assert code == 0
    assert "volt" in out
    assert "kB a month" in out
    assert [channel.scale for channel in decode_schema(kept.read_bytes()).channels] == [100, 10]
    code, out, _ = run("measure", trace, "--schema", kept, "--json")
    assert json.loads(out)["schema_bytes"] == len(kept.read_bytes())


def test_suggest_prints_json(trace: Path) -> None:
    code, out, _ = run("suggest", trace, "--json")
    answer = json.loads(out)
    assert code == 0
    assert [channel["name"] for channel in answer["channels"]] == ["volt", "amps"]
    assert answer["period_s"] == 60


def test_holdout_measures_only_what_was_not_fitted(trace: Path) -> None:
    _, out, _ = run("measure", trace, "--holdout", "--json")
    assert json.loads(out)["rows"] == 75


def test_a_schema_of_other_channels_is_refused(trace: Path, tmp_path: Path) -> None:
    kept = tmp_path / "trace.schema"
    run("suggest", trace, "--out", kept)
    other = tmp_path / "other.csv"
    other.write_text(TEXT.replace("amps", "ohms"))
    code, _, err = run("measure", other, "--schema", kept)
    assert code == 1
    assert "other channels" in err


@pytest.mark.parametrize("text", ["", "x,y\n1,2\n", "t,a\n60,warm\n", "t,a\n1,10\n"])
@pytest.mark.parametrize("command", ["measure", "suggest"])
def test_bad_files_fail_in_one_line(tmp_path: Path, text: str, command: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    code, out, err = run(command, path)
    assert code == 1
    assert out == ""
    assert err.startswith("Error: ")
    assert err.count("\n") == 1


def test_wrong_use_is_two() -> None:
    assert run("measure")[0] == 2
    assert run("measure", "x.csv", "--rows", 0)[0] == 2
