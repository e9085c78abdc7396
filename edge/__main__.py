"""`digitruck-edge`: the truck's daemon and the commands of whoever stands beside it."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import aiohttp
import click
import msgspec

from edge.clock import boottime
from edge.collectors.base import RealClock
from edge.collectors.check import check_collectors, render_checks
from edge.config import DEFAULT_TEXT, EdgeConfig, load_config
from edge.joining import join as join_fleet
from edge.offline import offline_status
from edge.schema_cli import schema_group
from edge.series import check_told, split_tables
from edge.service_cli import seal_keys, unit
from edge.standin import start_edge
from edge.status import EdgeStatus, render_links, render_status
from edge.usb_cli import make_scrub, make_usb_group
from protocol.errors import DigitruckError, LocalError, PeerError
from protocol.joincode import read_join_code
from store.logs import set_up_logs

_LOCAL_TIMEOUT_S = 10.0


class _Group(click.Group):
    """Turns every error of ours into one line on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except DigitruckError as error:
            click.echo(f"digitruck-edge: {error}", err=True)
            ctx.exit(1)
        except sqlite3.Error as error:
            click.echo(f"digitruck-edge: a database cannot be read: {error}; start the daemon to repair it", err=True)
            ctx.exit(1)
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            click.echo(f"digitruck-edge: {place}{error.strerror or error}", err=True)
            ctx.exit(1)


_config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("/etc/digitruck/edge.toml"),
    show_default=True,
    help="The truck's configuration file.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="digitruck", message="%(version)s")
def main() -> None:
    """Edge daemon of a Digitruck: collects, keeps, forwards, receives and serves.

    \b
    Examples:
      digitruck-edge join DT1-QVUGW... --config edge.toml
      digitruck-edge run --config edge.toml
      digitruck-edge status
    """


@main.command()
@click.argument("code")
@_config_option
@click.option("--new-keys", is_flag=True, help="Replace this truck's keys; nothing that waits to be sent is lost.")
def join(code: str, config: Path, new_keys: bool) -> None:
    """Enrol this truck with the one-time CODE that an operator made (`digitruck enrol TRUCK`).

    Writes a commented configuration file if there is none. Safe to repeat until it succeeds.

    \b
    Example:
      digitruck-edge join DT1-QVUGWZJN... --config /etc/digitruck/edge.toml
      digitruck-edge join DT1-QVUGWZJN... --new-keys     (stop the daemon first; the old keys end with this)
    """
    parsed = read_join_code(code)
    if not config.exists():
        config.parent.mkdir(parents=True, exist_ok=True)
        data = config.parent / "data" if config.parent != Path("/etc/digitruck") else Path("/var/lib/digitruck")
        config.write_text(DEFAULT_TEXT.format(data=data.resolve()), encoding="utf-8")
        click.echo(f"wrote {config}")
    settings, data = _load(config)
    set_up_logs("warning")
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    enrolment = asyncio.run(join_fleet(parsed, settings, data, new_keys=new_keys))
    click.echo(
        f"this truck is {enrolment.truck} of group {enrolment.group}; root {enrolment.root.hex()[:16]} is pinned"
    )
    click.echo(f"next: digitruck-edge run --config {config}")


@main.command()
@_config_option
def run(config: Path) -> None:
    """Run the daemon until stopped (SIGINT or SIGTERM).

    \b
    Example:
      digitruck-edge run --config /etc/digitruck/edge.toml
    """
    settings, data = _load(config)
    set_up_logs(settings.log_level)
    asyncio.run(_run(settings, data))


async def _run(settings: EdgeConfig, data: Path) -> None:
    edge = await start_edge(settings, data)
    click.echo(json.dumps({"truck": edge.enrolment.truck, "classroom": edge.classroom.address}))
    work = asyncio.create_task(edge.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        pass
    except BaseExceptionGroup as group:
        first = group.exceptions[0]
        raise LocalError(f"the daemon stopped: {type(first).__name__}: {first}") from group
    finally:
        await edge.close()


@main.command()
@_config_option
@_json_option
def status(config: Path, as_json: bool) -> None:
    """Show queues, links, budgets and versions; works offline, and also while the daemon is stopped.

    \b
    Examples:
      digitruck-edge status
      digitruck-edge status --json
    """
    settings, data = _load(config)
    try:
        found = _ask_status(settings)
    except _NotRunningError:
        click.echo("the daemon is not running; this is what its databases say", err=True)
        found = offline_status(settings, data)
    click.echo(msgspec.json.encode(found).decode() if as_json else render_status(found).rstrip("\n"))


@main.command()
@_config_option
@_json_option
def linkcheck(config: Path, as_json: bool) -> None:
    """Show each link: up or down, tariff, what is left, what would not go over it now, and when it will.

    \b
    Example:
      digitruck-edge linkcheck
      digitruck-edge linkcheck --json
    """
    settings, _ = _load(config)
    found = _ask_status(settings)
    if as_json:
        click.echo(msgspec.json.encode(found.links).decode())
        return
    click.echo(render_links(found.links).rstrip("\n"))


@main.command()
@click.argument("values", nargs=-1, required=True, metavar="CHANNEL=VALUE...")
@_config_option
def put(values: tuple[str, ...], config: Path) -> None:
    """Record one row of values from a script on the truck.

    \b
    Example:
      digitruck-edge put water.level=0.83 generator.hours=1204
    """
    settings, _ = _load(config)
    row = {}
    for value in values:
        name, sign, number = value.partition("=")
        try:
            row[name] = float(number)
        except ValueError:
            sign = ""
        if not sign:
            raise click.UsageError(f"{value!r} is not CHANNEL=VALUE with a number, such as water.level=0.83")
    asyncio.run(_local(settings, "POST", "/v1/records", {"values": row}))


@main.command()
@click.argument("name")
@click.argument("values", nargs=-1, metavar="[KEY=VALUE...]")
@click.option(
    "--precedence",
    type=click.Choice(["flash", "priority", "normal", "bulk"]),
    default="priority",
    show_default=True,
    help="How urgent it is.",
)
@_config_option
def event(name: str, values: tuple[str, ...], precedence: str, config: Path) -> None:
    """Send an event NAME with optional values.

    \b
    Example:
      digitruck-edge event door.opened --precedence flash side=rear
    """
    settings, _ = _load(config)
    body = {"name": name, "precedence": precedence, "values": dict(_pair(value) for value in values)}
    answer = json.loads(asyncio.run(_local(settings, "POST", "/v1/events", body)))
    click.echo(f"queued as parcel {answer['sequence']}")


@main.command()
@_config_option
@_json_option
def check(config: Path, as_json: bool) -> None:
    """Check the configuration and try every collector once, printing a sample of each.

    \b
    Example:
      digitruck-edge check --config edge.toml
    """
    settings, _ = _load(config)
    tables, series = split_tables(settings.collector)
    checks = check_told(asyncio.run(check_collectors(tables, clock=RealClock(boottime))), series)
    click.echo(msgspec.json.encode(checks).decode() if as_json else render_checks(checks).rstrip("\n"))
    if any(each.error for each in checks):
        raise SystemExit(1)


main.add_command(schema_group, "schema")
main.add_command(unit)
main.add_command(seal_keys)
_called = lambda config, method, path, body: _local(_load(config)[0], method, path, body)  # noqa: E731
main.add_command(make_usb_group(_called), "usb")
main.add_command(make_scrub(_called), "scrub")


class _NotRunningError(LocalError):
    """Nobody listens where the daemon would."""


def _ask_status(settings: EdgeConfig) -> EdgeStatus:
    try:
        return msgspec.json.decode(asyncio.run(_local(settings, "GET", "/v1/status", None)), type=EdgeStatus)
    except (msgspec.DecodeError, PeerError) as error:
        listen = settings.classroom.listen
        raise LocalError(f"what answers on {listen} is not this daemon: change [classroom] listen ({error})") from error


async def _local(settings: EdgeConfig, method: str, path: str, body: Any) -> bytes:
    """Call the daemon's local API; raise `PeerError` with its own words, `LocalError` when it does not run."""
    host, _, port = settings.classroom.listen.rpartition(":")
    # "Any address" is where the daemon listens, not where one can call it.
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104
    timeout = aiohttp.ClientTimeout(total=_LOCAL_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, f"http://{host}:{port}{path}", json=body) as response,
        ):
            data = await response.read()
            if response.status >= 400:
                raise PeerError(_problem(data, response.status))
            return data
    except (aiohttp.ClientConnectionError, TimeoutError) as error:
        raise _NotRunningError(
            f"the daemon does not answer on {host}:{port}: start it with `digitruck-edge run`"
        ) from error


def _problem(data: bytes, status: int) -> str:
    try:
        problem = json.loads(data)
        return str(problem.get("detail") or problem.get("title"))
    except (ValueError, AttributeError):
        return f"the daemon answered {status}"


def _pair(text: str) -> tuple[str, int | bool | str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise click.UsageError(f"{text!r} is not KEY=VALUE")
    if value in ("true", "false"):
        return name, value == "true"
    try:
        return name, int(value)
    except ValueError:
        return name, value


def _load(config: Path) -> tuple[EdgeConfig, Path]:
    settings = load_config(config)
    return settings, (config.parent / settings.data).resolve()


if __name__ == "__main__":
    main()
