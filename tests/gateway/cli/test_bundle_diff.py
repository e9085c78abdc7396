"""`bundle diff` reports what an update weighs, only after decoding it again."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.bundle_diff import diff_command


def write(folder: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    folder.mkdir(exist_ok=True)
    return folder


def run(*arguments: object) -> dict[str, object]:
    result = CliRunner().invoke(diff_command, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


PAGES = {f"p/{n}.html": f"page {n} of the first version {n * 7919 % 1000}\n" * 20 for n in range(20)}


def test_an_update_is_measured_and_its_round_trip_verified(tmp_path: Path) -> None:
    old = write(tmp_path / "old", PAGES)
    new = write(tmp_path / "new", {path: text.replace("first", "second") for path, text in PAGES.items()})
    report = run(old, new)
    assert report["round_trip"] is True
    assert report["files"] == 20
    assert 0 < report["pack_bytes"] < 1000
    assert 100 < report["manifest_bytes"] < 400


def test_a_first_install_is_measured_against_an_empty_folder(tmp_path: Path) -> None:
    report = run(write(tmp_path / "old", {}), write(tmp_path / "new", PAGES))
    assert report["round_trip"] is True
    assert report["pack_bytes"] > 100


def test_moved_files_need_no_pack(tmp_path: Path) -> None:
    new = write(tmp_path / "new", {f"elsewhere/{path}": text for path, text in PAGES.items()})
    report = run(write(tmp_path / "old", PAGES), new)
    assert report["pack_bytes"] == 0
    assert report["round_trip"] is True


def test_the_report_for_people_says_that_it_was_verified(tmp_path: Path) -> None:
    result = CliRunner().invoke(diff_command, [str(write(tmp_path / "old", {})), str(write(tmp_path / "new", PAGES))])
    assert "verified" in result.stdout


@pytest.mark.parametrize("missing", ["old", "new"])
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, missing: str) -> None:
    folders = {name: tmp_path / name for name in ("old", "new")}
    for name, folder in folders.items():
        if name != missing:
            write(folder, PAGES)
    result = CliRunner().invoke(diff_command, [str(folders["old"]), str(folders["new"])])
    assert result.exit_code != 0
    assert str(folders[missing]) in str(result.exception)
