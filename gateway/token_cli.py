"""`digitruck-gateway token`: access tokens made on the gateway's own machine, when nobody can sign in any more."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import click

from gateway.api.auth import Role, new_token, token_sha256
from gateway.config import load_config
from gateway.daemon import database_url, folder_lock
from gateway.key_cli import config_option
from protocol.errors import LocalError
from store.fleet.errors import TokenNameError
from store.fleet.fleet import FleetStore, migrate


@click.group()
def token() -> None:
    """Access tokens of people and programs; `digitruck token` does the same over the network.

    \b
    Example:
      digitruck-gateway token new asha --role admin --config /srv/digitruck/gateway.toml
    """


@token.command("new")
@click.argument("name")
@click.option("--role", type=click.Choice([each.value for each in Role]), required=True, help="What it may do.")
@config_option
def token_new(name: str, role: str, config: Path) -> None:
    """Make a token called NAME and print it once; stop the gateway first.

    \b
    Example:
      digitruck-gateway token new asha --role admin --config /srv/digitruck/gateway.toml
    """
    settings = load_config(config)
    data = (config.parent / settings.data).resolve()
    lock = folder_lock(data)
    lock.take()
    made = new_token()

    async def put() -> None:
        url = database_url(settings, data)
        await migrate(url)
        fleet = await FleetStore.open(url)
        try:
            await fleet.put_token(token_sha256(made), name, role, time.time_ns() // 1_000_000, None)
        finally:
            await fleet.close()

    try:
        asyncio.run(put())
    except TokenNameError as error:
        raise LocalError(str(error)) from error
    finally:
        lock.release()
    click.echo(made)
