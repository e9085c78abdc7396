"""edge.toml: defaults, unknown keys refused with their path, errors that name the key."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from edge.config import DEFAULT_TEXT, ConfigError, EdgeConfig, load_config


def load(tmp_path: Path, text: str) -> EdgeConfig:
    path = tmp_path / "edge.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_an_empty_file_is_a_whole_configuration(tmp_path: Path) -> None:
    assert load(tmp_path, "") == EdgeConfig()


def test_the_default_text_says_what_the_defaults_are(tmp_path: Path) -> None:
    text = DEFAULT_TEXT.format(data="/var/lib/digitruck")
    assert load(tmp_path, text) == EdgeConfig()
    # Every commented key is a key, with the default that it claims, except the examples of a second table.
    head = text.partition("[[link]]")[0]
    shown = tomllib.loads("\n".join(line.removeprefix("# ") if " = " in line else line for line in head.splitlines()))
    for key, value in shown.items():
        if key != "classroom":
            assert getattr(EdgeConfig(), key) == value
    assert shown["classroom"]["listen"] == EdgeConfig().classroom.listen
    assert tuple(shown["classroom"]["local_post_from"]) == EdgeConfig().classroom.local_post_from


def test_the_commented_examples_of_the_default_text_are_valid(tmp_path: Path) -> None:
    lines = DEFAULT_TEXT.format(data="d").partition("[[link]]")
    tail = "\n".join(line.removeprefix("# ") for line in (lines[1] + lines[2]).splitlines())
    config = load(tmp_path, tail)
    assert [link.name for link in config.link] == ["lte", "sat", "depot"]
    assert not config.link[1].bulk
    assert [table["kind"] for table in config.collector] == ["host", "vedirect"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("month = 3", "month"),
        ('[[link]]\nname = "lte"\nmonth_bytes = 3', "month_bytes"),
        ('[[link]]\nname = "LTE"', "$.link[0].name"),
        ('[[link]]\nname = "lte"\ngateways = ["no port"]', "$.link[0].gateways[0]"),
        ('[classroom]\nlisten = "everywhere"', "$.classroom.listen"),
        ("batch_age_s = 0", "$.batch_age_s"),
        ('batch_age_s = "long"', "$.batch_age_s"),
        ("state_mb_max = 99999999999999999999999", "state_mb_max"),
        ("data = \n", "line 1"),
    ],
)
def test_an_error_names_the_file_and_the_key(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(tmp_path / "edge.toml") in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_links_have_names_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a name of its own"):
        load(tmp_path, '[[link]]\nname = "lte"\n[[link]]\nname = "lte"')
    with pytest.raises(ConfigError, match="there must be one"):
        load(tmp_path, "link = []")


def test_a_reserve_is_within_its_budget(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="link lte: reserve_bytes"):
        load(tmp_path, '[[link]]\nname = "lte"\nmonth_bytes_max = 10\nreserve_bytes = 11')


def test_a_missing_file_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="digitruck-edge join CODE"):
        load_config(tmp_path / "absent.toml")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(tmp_path / "edge.toml")


def test_a_deeply_nested_file_is_refused_and_not_a_crash(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load(tmp_path, "a = " + "[" * 100_000)
