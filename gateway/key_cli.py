"""`digitruck-gateway key`: the gateway's own keys, and further ones to replace them with."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gateway.config import load_config
from gateway.ownkeys import GatewayKeys, add_key, load_keys

_NEXT = {
    "freshness": "digitruck trust rotate gateway --old {old} --new {new} --key YOURS",
    "exchange": "digitruck trust rotate exchange --new {number}:{new} --key YOURS",
}
config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("gateway.toml"),
    show_default=True,
    help="The gateway's configuration file.",
)


@click.group()
def key() -> None:
    """The gateway's own keys: they open sessions (exchange) and stamp freshness, no more.

    To replace one: make a new one here, have the holders of the root keys sign a root that names it, and push that. The
    gateway uses it from that moment, without a restart; each truck follows when it next calls. Once `digitruck trust
    status` names no truck as behind, move the old file away.

    \b
    Examples:
      digitruck-gateway key show --config /srv/digitruck/gateway.toml
      digitruck-gateway key new freshness
    """


@key.command("new")
@click.argument("kind", type=click.Choice(["freshness", "exchange"]))
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def key_new(kind: str, config: Path, as_json: bool) -> None:
    """Make a further key beside the present one; it counts as soon as a root names it.

    \b
    Examples:
      digitruck-gateway key new freshness --config /srv/digitruck/gateway.toml
      digitruck-gateway key new exchange
    """
    folder = _folder(config)
    before = load_keys(folder)
    number = add_key(folder, kind)
    public = _publics(load_keys(folder))[kind][number].hex()
    if as_json:
        click.echo(json.dumps({"kind": kind, "number": number, "public": public}))
        return
    old = list(_publics(before)[kind].values())[-1].hex()
    click.echo(f"{kind} key {number}: {public}")
    click.echo("next, who holds a root key: " + _NEXT[kind].format(old=old, new=public, number=number))


@key.command("show")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def key_show(config: Path, as_json: bool) -> None:
    """Print the public halves of the gateway's keys: read them to who holds a root key.

    \b
    Example:
      digitruck-gateway key show --config /srv/digitruck/gateway.toml
    """
    found = [
        {"kind": kind, "number": number, "public": public.hex()}
        for kind, keys in _publics(load_keys(_folder(config))).items()
        for number, public in keys.items()
    ]
    if as_json:
        click.echo(json.dumps(found))
        return
    for each in found:
        click.echo(f"{each['kind']:9} {each['number']}:{each['public']}")


def _publics(keys: GatewayKeys) -> dict[str, dict[int, bytes]]:
    return {
        "freshness": {number: each.public for number, each in keys.freshness_keys.items()},
        "exchange": {number: each.public for number, each in keys.exchange_keys.items()},
    }


def _folder(config: Path) -> Path:
    return (config.parent / load_config(config).data).resolve() / "keys"
