"""`digitruck key`: make, show and exchange signing keys. The private half never leaves this machine."""

from __future__ import annotations

import secrets
from pathlib import Path

import click
import msgspec

from gateway.cli.output import examples, json_option, print_json, print_table, say
from gateway.cli.session import keystore
from gateway.keystore import KeyRole, read_public_line


class KeyShown(msgspec.Struct, frozen=True):
    """One key in `digitruck key show --json`."""

    name: str
    role: str
    mine: bool
    key_id: str
    public: str


@click.group(
    epilog=examples(
        "digitruck key new asha --role operator",
        "digitruck key show",
        "digitruck key add juma.pub",
    )
)
def key() -> None:
    """Your signing keys, and other people's public ones."""


@key.command(
    "new",
    epilog=examples(
        "digitruck key new asha --role operator",
        "digitruck key new asha-root --role root",
        "digitruck key new library --role publisher",
    ),
)
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in KeyRole]), required=True, help="What it will sign.")
def key_new(name: str, role: str) -> None:
    """Make a signing key called NAME on this machine.

    Its public line goes to whoever holds the root keys, who delegates your role to it with `digitruck trust`.
    """
    store = keystore()
    made = store.new(name, KeyRole(role), secrets.token_bytes(32))
    say(made.line.text())
    say(f"Kept in {store.folder / name}.key: copy it to a safe place; nobody can restore it for you.")
    say(f"Give the line above ({store.folder / name}.pub) to the holders of the root keys.")


@key.command("show", epilog=examples("digitruck key show", "digitruck key show asha", "digitruck key show --json"))
@click.argument("name", required=False)
@json_option
def key_show(name: str | None, as_json: bool) -> None:
    """List the keys on this machine, or print the public line of one."""
    store = keystore()
    if name is not None and not as_json:
        say(store.public(name).text())
        return
    mine = {each.signing.public for each in store.mine()}
    lines = store.people().values() if name is None else [store.public(name)]
    shown = [
        KeyShown(each.name, each.role, each.public in mine, each.key_id.hex(), each.public.hex())
        for each in sorted(lines, key=lambda each: each.name)
    ]
    if as_json:
        print_json(shown)
        return
    print_table(
        ["name", "role", "mine", "key id"],
        [(each.name, each.role, each.mine, each.key_id) for each in shown],
        empty="no keys yet: digitruck key new NAME --role operator",
    )


@key.command("add", epilog=examples("digitruck key add juma.pub", "digitruck key add stick/wanjiru.pub"))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def key_add(file: Path) -> None:
    """Keep another person's public key, so that you can name it.

    Compare its key id with that person, by voice, before you let it sign anything.
    """
    line = read_public_line(file.read_text(errors="replace")[:4_096])
    keystore().add(line)
    say(f"{line.name} is {line.key_id.hex()} from now on. Read it to {line.name} over the phone to be sure.")
