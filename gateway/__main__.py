"""`digitruck-gateway`: make, serve and look after a gateway."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import click

from gateway.backup_cli import backup, backup_key, restore
from gateway.config import ConfigError, GatewayConfig, load_config
from gateway.daemon import Gateway, database_url, folder_lock, initialise, load_keys, places_of_keys
from gateway.key_cli import key
from gateway.service_cli import seal_keys, unit
from gateway.token_cli import token
from protocol.errors import DigitruckError
from store.fleet.fleet import FleetStore, migrate
from store.logs import set_up_logs
from store.notify import notify


class _Group(click.Group):
    """Turns every error of ours into one line on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except DigitruckError as error:
            click.echo(f"digitruck-gateway: {error}", err=True)
            ctx.exit(1)
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            click.echo(f"digitruck-gateway: {place}{error.strerror or error}", err=True)
            ctx.exit(1)


_config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("gateway.toml"),
    show_default=True,
    help="The gateway's configuration file.",
)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="digitruck", message="%(version)s")
def main() -> None:
    """Central gateway of a Digitruck fleet: CoAP for trucks, HTTP for people.

    \b
    Examples:
      digitruck-gateway demo
      digitruck-gateway init /srv/digitruck --coap gateway.example.org:5683
      digitruck-gateway serve --config /srv/digitruck/gateway.toml
    """


@main.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--coap", default="127.0.0.1:5683", show_default=True, help="Address that trucks call (in every code).")
@click.option("--http", default="127.0.0.1:8080", show_default=True, help="Address to serve the HTTP API on.")
def init(folder: Path, coap: str, http: str) -> None:
    """Make a data folder, gateway.toml, the gateway's keys and the first operator token (printed once).

    \b
    Example:
      digitruck-gateway init /srv/digitruck --coap 203.0.113.9:5683
    """
    path, token = asyncio.run(initialise(folder, coap=coap, http=http))
    click.echo(f"configuration  {path}")
    click.echo(f"first token    {token}   (role admin; shown only now)")
    click.echo(f"next           digitruck-gateway serve --config {path}")
    click.echo(f"then           digitruck login http://{http} --token {token}")


@main.command()
@_config_option
def serve(config: Path) -> None:
    """Answer trucks and people until stopped (SIGINT or SIGTERM).

    \b
    Example:
      digitruck-gateway serve --config /srv/digitruck/gateway.toml
    """
    settings, data = _load(config)
    set_up_logs(settings.log_level)
    asyncio.run(_serve(settings, data))


async def _serve(settings: GatewayConfig, data: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    gateway = Gateway(settings, data)
    await gateway.start()
    # Whoever started this process can read where it listens, ports chosen by the kernel included.
    click.echo(json.dumps({"coap": gateway.coap_address, "http": f"{gateway.api.address}:{gateway.api.port}"}))
    sys.stdout.flush()
    notify("READY=1")
    await stop.wait()
    notify("STOPPING=1")
    await gateway.close()


@main.command()
@_config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(config: Path, as_json: bool) -> None:
    """Check configuration, keys and database without serving.

    \b
    Example:
      digitruck-gateway check --config /srv/digitruck/gateway.toml
    """
    settings, data = _load(config)
    keys = load_keys(data / "keys")

    async def look() -> dict[str, object]:
        fleet = await FleetStore.open(database_url(settings, data))
        try:
            summary = await fleet.summary()
        finally:
            await fleet.close()
        return {
            "configuration": str(config),
            "keys": places_of_keys(data / "keys"),
            "database": database_url(settings, data).split("@")[-1],
            "freshness_key": keys.freshness.public.hex(),
            "trucks": summary.trucks,
            "to_roll_up": summary.to_roll_up,
            "quarantined": summary.quarantined,
        }

    _print(asyncio.run(look()), as_json=as_json)


@main.command(name="migrate")
@_config_option
def migrate_command(config: Path) -> None:
    """Bring the database to this release's schema (`serve` does it too); stop the gateway first.

    \b
    Example:
      digitruck-gateway migrate --config /srv/digitruck/gateway.toml
    """
    settings, data = _load(config)
    lock = folder_lock(data)
    lock.take()
    try:
        asyncio.run(migrate(database_url(settings, data)))
    finally:
        lock.release()
    click.echo("the database is at this release's schema")


@main.command()
@_config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def scrub(config: Path, as_json: bool) -> None:
    """Read everything that carries a hash and hash it again; exit code 1 if anything is damaged.

    \b
    Example:
      digitruck-gateway scrub --config /srv/digitruck/gateway.toml
    """
    settings, data = _load(config)

    async def look() -> dict[str, object]:
        fleet = await FleetStore.open(database_url(settings, data))
        try:
            report = await fleet.scrub()
        finally:
            await fleet.close()
        return {
            "sound": report.sound,
            "parcels": report.parcels,
            "documents": report.documents,
            "schemas": report.schemas,
            "database": report.database_check,
            "damaged": ", ".join(report.damaged),
        }

    result = asyncio.run(look())
    _print(result, as_json=as_json)
    if not result["sound"]:
        raise SystemExit(1)


@main.command()
@click.option("--trucks", type=click.IntRange(1, 11), default=3, show_default=True, help="How many trucks.")
@click.option(
    "--seconds", type=click.FloatRange(min=1), help="End by itself after so long (a slow machine: up to 60 s more)."
)
@click.option("--http", type=click.IntRange(1, 65_535), help="Port of the HTTP API; 8080 if it is free.")
@click.option("--coap", type=click.IntRange(1, 65_535), help="Port for the trucks; any that is free.")
@click.option("--dir", "folder", type=click.Path(file_okay=False, path_type=Path), help="Keep everything in DIR.")
def demo(trucks: int, seconds: float | None, http: int | None, coap: int | None, folder: Path | None) -> None:
    """Show a gateway and trucks at work on this machine, over emulated satellite and 4G links.

    \b
    Examples:
      digitruck-gateway demo
      digitruck-gateway demo --seconds 60 --dir ./demo
    """
    # Only this command needs a terminal's library; `serve` starts without it.
    from rich.console import Console

    from gateway.demo.run import DemoOptions, run_demo

    options = DemoOptions(trucks=trucks, seconds=seconds, http=http, coap=coap, folder=folder)
    raise SystemExit(asyncio.run(run_demo(options, Console())))


for command in (backup, restore, backup_key, unit, seal_keys, key, token):
    main.add_command(command)


def _load(config: Path) -> tuple[GatewayConfig, Path]:
    settings = load_config(config)
    return settings, (config.parent / settings.data).resolve()


def _print(values: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(values))
        return
    width = max(len(name) for name in values)
    for name, value in values.items():
        click.echo(f"{name.ljust(width)}  {value}")


__all__ = ["ConfigError", "main"]

if __name__ == "__main__":
    main()
