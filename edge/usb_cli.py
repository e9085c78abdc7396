"""`digitruck-edge usb`: what a courier or another truck brings and takes, and the unit that does it by itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from edge.sticks import StickState
from protocol.errors import LocalError
from store.stickfolder import FOLDER
from store.units import program

_POLL_S = 0.5
_config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("/etc/digitruck/edge.toml"),
    show_default=True,
    help="The truck's configuration file.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_if_ours = click.option("--if-ours", is_flag=True, help=f"Do nothing unless there is a folder {FOLDER} on it.")

Local = Callable[[Path, str, str, Any], Awaitable[bytes]]
"""Calls the daemon's local API: configuration, method, path, body."""


def make_usb_group(local: Local) -> click.Group:
    """Return the group; `local` is how the daemon is called."""

    @click.group()
    def usb() -> None:
        """By stick, cable or classroom network: bring content and documents, take telemetry along.

        \b
        Examples:
          digitruck-edge usb import /media/stick
          digitruck-edge usb export /media/stick
          digitruck-edge usb import http://10.0.0.5:8080      (another truck, or a depot)
          digitruck-edge usb unit                             (does both whenever a stick is put in)
        """

    @usb.command("import")
    @click.argument("source", metavar="PATH|URL")
    @_if_ours
    @_config_option
    @_json_option
    def usb_import(source: str, if_ours: bool, config: Path, as_json: bool) -> None:
        """Take what is there for this truck: documents, what the gateway confirms, and content.

        Everything is checked before it counts; what is damaged or missing is said, and comes by another way. If it
        breaks off (the stick was pulled out), begin it again: it goes on.

        \b
        Examples:
          digitruck-edge usb import /media/stick
          digitruck-edge usb import http://10.0.0.5:8080
        """
        if not (if_ours and not _is_ours(source)):
            where = source if "://" in source else str(Path(source).absolute())
            _finish(asyncio.run(_follow(local, config, {"action": "import", "path": where})), as_json=as_json)

    @usb.command("export")
    @click.argument("path", metavar="PATH")
    @click.option("--content", multiple=True, metavar="NAME", help="Also this bundle, for another truck; repeatable.")
    @_if_ours
    @_config_option
    @_json_option
    def usb_export(path: str, content: tuple[str, ...], if_ours: bool, config: Path, as_json: bool) -> None:
        """Write the telemetry, events and receipts that wait to the stick, encrypted to the gateway.

        They stay here until the gateway says that it has them, over any link or by the next stick.

        \b
        Examples:
          digitruck-edge usb export /media/stick
          digitruck-edge usb export /media/stick --content maths
        """
        if not (if_ours and not _is_ours(path)):
            body = {"action": "export", "path": str(Path(path).absolute()), "content": content}
            _finish(asyncio.run(_follow(local, config, body)), as_json=as_json)

    usb.add_command(_unit, "unit")
    return usb


def make_scrub(local: Local) -> click.Command:
    """Return `digitruck-edge scrub`; `local` is how the daemon is called."""

    @click.command()
    @_config_option
    @_json_option
    def scrub(config: Path, as_json: bool) -> None:
        """Hash every file of every bundle again; mend what rotted, and ask for what cannot be mended here.

        A damaged file is replaced from a good copy on this disk, or fetched by itself over a link. Exit code 1 if
        anything was damaged.

        \b
        Examples:
          digitruck-edge scrub
          digitruck-edge scrub --json
        """
        state = asyncio.run(_follow(local, config, {"action": "scrub"}))
        _finish(state, as_json=as_json)
        if len(state.notes) > 1:
            raise SystemExit(1)

    return scrub


@click.command()
@_config_option
@click.option("--user", default="digitruck", show_default=True, help="The user that the daemon runs as.")
@click.option("--udev", is_flag=True, help="Print the udev rule and not the unit.")
def _unit(config: Path, user: str, udev: bool) -> None:
    """Print the unit that takes a stick whenever one is put in, or the udev rule that starts it.

    The stick is mounted without programs, devices or set-uid bits, imported, exported to, and unmounted; a stick
    without a folder digitruck on it is left alone.

    \b
    Example:
      digitruck-edge usb unit > /etc/systemd/system/digitruck-usb@.service
      digitruck-edge usb unit --udev > /etc/udev/rules.d/80-digitruck-usb.rules
      systemctl daemon-reload && udevadm control --reload
    """
    click.echo(UDEV_RULE if udev else unit_text(config.absolute(), user), nl=False)


UDEV_RULE = """\
# A stick with a file system: systemd mounts it, has the daemon take it, and unmounts it.
ACTION=="add", SUBSYSTEM=="block", ENV{ID_BUS}=="usb", ENV{ID_FS_USAGE}=="filesystem", \\
  TAG+="systemd", ENV{SYSTEMD_WANTS}+="digitruck-usb@%k.service"
"""


def unit_text(config: Path, user: str) -> str:
    """Return the unit for one device, whose name is its instance."""
    command = program("digitruck-edge")
    place = "/run/digitruck-usb/%i"
    safe = "nosuid,nodev,noexec,noatime"
    return f"""\
[Unit]
Description=A courier's stick on /dev/%i
BindsTo=dev-%i.device
After=dev-%i.device digitruck-edge.service

[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStartPre=/bin/mkdir -p {place}
# FAT knows no owners: it is mounted for the daemon's user. Other file systems take no uid option.
ExecStartPre=/bin/sh -c 'mount -o {safe},uid={user} /dev/%i {place} || mount -o {safe} /dev/%i {place}'
ExecStart=-{command} usb import {place} --if-ours --config {config}
ExecStart={command} usb export {place} --if-ours --config {config}
ExecStopPost=-/bin/umount {place}
"""


def _is_ours(source: str) -> bool:
    return "://" in source or (Path(source) / FOLDER).is_dir()


async def _follow(local: Local, config: Path, body: dict[str, Any]) -> StickState:
    """Begin it, show how it goes on a terminal, and return how it ended."""
    await local(config, "POST", "/v1/sticks", body)
    shown = ""
    while True:
        state = msgspec.json.decode(await local(config, "GET", "/v1/sticks", None), type=StickState)
        if not state.running:
            if shown:
                click.echo("", err=True)
            return state
        line = _line(state)
        if sys.stderr.isatty() and line != shown:
            click.echo(f"\r{line:<{max(len(shown), len(line))}}", nl=False, err=True)
            shown = line
        await asyncio.sleep(_POLL_S)


def _line(state: StickState) -> str:
    if not state.total_bytes:
        return f"{state.doing} ..."
    return f"{state.doing}: {100 * state.done_bytes // state.total_bytes} % of {state.total_bytes / 1e6:.1f} MB"


def _finish(state: StickState, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(state).decode())
    else:
        for each in state.notes:
            click.echo(each)
    if state.error:
        raise LocalError(state.error)
