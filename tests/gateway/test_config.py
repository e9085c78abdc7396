"""gateway.toml: what is wrong is named by its key, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import DEFAULT_TEXT, ConfigError, GatewayConfig, load_config, parse_config, split_listen


def test_the_default_file_is_valid_and_says_what_was_asked_for() -> None:
    config = parse_config(DEFAULT_TEXT.format(coap="gw.example.org:5700", http="127.0.0.1:8080", port="5700"), "x")
    assert config.coap.public == ("gw.example.org:5700",)
    assert config.coap.listen == "0.0.0.0:5700"
    assert config.http.listen == "127.0.0.1:8080"


def test_an_empty_file_is_all_defaults() -> None:
    assert parse_config("", "x") == GatewayConfig()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("colour = 1", "colour"),
        ("[coap]\nport = 5683", r"\$\.coap"),
        ("[http]\nlisten = 8080", r"\$\.http\.listen"),
        ("[http]\nlisten = 'localhost:8080'", r"\$\.http\.listen"),
        ("[coap]\nlisten = '0.0.0.0:65536'", "65535"),
        ("[coap]\nlisten = '300.1.1.1:5683'", "no IP address"),
        ("[coap]\npublic = ['no port']", r"\$\.coap\.public"),
        ("pack_workers = 0", "pack_workers"),
        ("log_level = 'loud'", "log_level"),
        ("data = ", "Invalid value"),
    ],
)
def test_what_is_wrong_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_config(text, "gateway.toml")


def test_a_file_that_is_not_there_or_not_text_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="digitruck-gateway init"):
        load_config(tmp_path / "gateway.toml")
    (tmp_path / "gateway.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(tmp_path / "gateway.toml")


def test_addresses_of_both_families_are_split() -> None:
    assert split_listen("127.0.0.1:80") == ("127.0.0.1", 80)
    assert split_listen("[::]:5683") == ("::", 5683)
