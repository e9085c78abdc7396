"""The command as a whole: every help has examples, every error is one line with the next step, exit codes hold."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gateway.cli.__main__ import digitruck as command
from gateway.cli.__main__ import main
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.running import RunningGateway


def walk(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, group
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from walk(each, (*path, name))
        else:
            yield (*path, name), each


COMMANDS = list(walk(command))
LISTINGS = {
    "alarm ack", "alarm list", "audit log", "audit verify", "budget history", "budget pool", "budget show",
    "budget whatif",
    "bundle diff", "bundle list", "bundle show", "config diff", "config history", "config show", "console",
    "coverage", "enrol", "events", "key show", "ledger compare", "ledger reconcile", "ledger show",
    "quote", "report impact", "rollout list", "rollout show", "samples",
    "token list", "token new", "token revoke", "truck", "trucks", "trust delegate", "trust fetch", "trust init",
    "trust push", "trust renew", "trust resign", "trust revoke", "trust rotate", "trust show", "trust sign",
    "trust status", "usb export", "usb import", "usb list", "usb revoke", "verify", "watch",
    "webhook list", "webhook new", "webhook show",
}  # fmt: skip


@pytest.mark.parametrize(("path", "each"), COMMANDS, ids=[" ".join(path) or "digitruck" for path, _ in COMMANDS])
def test_every_help_says_what_it_does_and_shows_examples(
    digitruck: Digitruck, path: tuple[str, ...], each: click.Command
) -> None:
    shown = digitruck(*path, "--help")
    lines = shown.out.partition("Examples:\n")[2].strip().splitlines()
    assert lines, "no example"
    words = " ".join(("digitruck", *path))
    assert all(line.strip().startswith("digitruck ") for line in lines)
    assert any(line.strip().startswith(words) for line in lines)
    assert each.help
    for option in each.params:
        assert not isinstance(option, click.Option) or option.help, option.name


@pytest.mark.parametrize(("path", "each"), COMMANDS, ids=[" ".join(path) or "digitruck" for path, _ in COMMANDS])
def test_every_example_is_a_command_line_that_parses(home: Path, path: tuple[str, ...], each: click.Command) -> None:
    for line in re.findall(r"^  (digitruck .*)$", each.epilog or "", re.MULTILINE):
        words = shlex.split(re.split(r"\s{3,}| \| | > ", line)[0])[1:]
        context = command.make_context("digitruck", [], resilient_parsing=True)
        found: click.Command = command
        while isinstance(found, click.Group):
            if not words or (words[0] not in found.commands and "show" in found.commands):
                words = ["show", *words]  # `digitruck ledger` is `digitruck ledger show`
            name, inner, words = found.resolve_command(context, words)
            assert inner is not None, name
            found = inner
        # The files that the lines name are made, so that everything about them must hold.
        for word in words:
            if word.endswith((".pub", ".toml", ".csv")):
                (home / word).parent.mkdir(exist_ok=True)
                (home / word).touch()
        found.make_context("digitruck", words, parent=context)


def test_every_listing_takes_json() -> None:
    taking = {" ".join(path) for path, each in COMMANDS if any(option.name == "as_json" for option in each.params)}
    assert taking == LISTINGS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["truks"], "Did you mean"),
        (["config", "sho"], "Did you mean"),
        (["trucks", "--jsn"], "--json"),
        (["truck"], "Missing argument 'TRUCK'"),
        (["samples", "ke-arrow", "--since", "yesterdayish"], "is not a time"),
        (["enrol", "ke-arrow", "--expires-in", "soon"], "is not a duration"),
        (["config", "set", "--key", "asha"], "TRUCK"),
        (["quote", "maths"], "--trucks or --group"),
        (["rollout", "create", "maths", "--trucks", ",", "--key", "asha"], "names none"),
    ],
)
def test_wrong_use_is_one_line_with_the_next_step_and_code_2(
    digitruck: Digitruck, arguments: list[str], message: str
) -> None:
    ran = digitruck(*arguments, ok=False)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert message in ran.err
    assert re.search(r"See: digitruck[a-z ]* --help$", ran.err.strip())


def test_no_arguments_print_the_help_and_are_wrong_use(digitruck: Digitruck) -> None:
    ran = digitruck(ok=False)
    assert ran.code == 2
    assert "Commands:" in ran.err


def test_an_unreachable_gateway_is_one_line_and_code_1(digitruck: Digitruck) -> None:
    ran = digitruck("login", "http://127.0.0.1:1", "--token", "x", ok=False)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "cannot be reached" in ran.err


def test_not_signed_in_says_how(digitruck: Digitruck) -> None:
    ran = digitruck("trucks", ok=False)
    assert ran.code == 1
    assert ran.err == "digitruck: not signed in yet: digitruck login URL\n"


def test_a_missing_truck_is_code_1_and_says_so(signed_in: RunningGateway, digitruck: Digitruck) -> None:
    ran = digitruck("truck", "no-such", ok=False)
    assert ran.code == 1
    assert "no truck of that name" in ran.err
    ran = digitruck("truck", "../trucks", ok=False)
    assert ran.code == 1
    assert ran.out == ""


def test_a_closed_pipe_ends_quietly(home: Path) -> None:
    run = subprocess.run(
        ["/bin/sh", "-c", '"$0" -m gateway.cli --help | true', sys.executable],
        cwd=Path(__file__).resolve().parents[3],
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (run.stdout, run.stderr) == ("", "")


def test_ctrl_c_is_one_line_and_code_1(digitruck: Digitruck, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gateway.cli.session.load_session", interrupted)
    assert main(["trucks"]) == 1
    assert digitruck("trucks", ok=False).err.strip() == "digitruck: stopped"


def test_version_is_printed(digitruck: Digitruck) -> None:
    assert re.fullmatch(r"digitruck (0|\d+\.\d+\.\d+)\n", digitruck("--version").out)
