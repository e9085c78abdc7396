"""`digitruck-edge unit` and `digitruck-edge seal-keys`: the daemon as a service, and its keys sealed to the machine."""

from __future__ import annotations

from pathlib import Path

import click

from edge.config import load_config
from edge.identity import CREDENTIALS
from store.credentials import KEY_CHOICES, Sealer
from store.units import program, service

UNIT = "digitruck-edge.service"
_config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("/etc/digitruck/edge.toml"),
    show_default=True,
    help="The truck's configuration file.",
)


@click.command()
@_config_option
@click.option("--user", default="digitruck", show_default=True, help="The user that the daemon runs as.")
def unit(config: Path, user: str) -> None:
    """Print a hardened systemd unit for this truck's daemon.

    \b
    Example:
      digitruck-edge unit > /etc/systemd/system/digitruck-edge.service
      systemctl daemon-reload && systemctl enable --now digitruck-edge
    """
    command: list[str | Path] = [program("digitruck-edge"), "run", "--config", config.absolute()]
    lines = [
        "SupplementaryGroups=dialout",  # serial ports
        "AmbientCapabilities=CAP_NET_RAW",  # binding a link's socket to its interface
        "CapabilityBoundingSet=CAP_NET_RAW",
    ]
    click.echo(service("Digitruck edge daemon", command, user=user, writes=_data(config), lines=lines), nl=False)


@click.command(name="seal-keys")
@_config_option
@click.option("--with-key", type=click.Choice(KEY_CHOICES), default="auto", show_default=True, help="What seals.")
@click.option("--tpm2-device", help="The TPM, e.g. /dev/tpmrm0; found by itself otherwise.")
@click.option("--keep", is_flag=True, help="Leave the key files where they are.")
def seal_keys(config: Path, with_key: str, tpm2_device: str | None, keep: bool) -> None:
    """Move this truck's key files into systemd credentials, sealed to this machine (and its TPM, if it has one).

    Run it as root on the truck, with the service of `digitruck-edge unit` installed. Each key is opened again and
    compared before its file is deleted. A sealed key opens on this machine alone: after a new board, `join` anew.

    \b
    Example:
      digitruck-edge seal-keys --with-key tpm2
      systemctl daemon-reload && systemctl restart digitruck-edge
    Back to files:
      systemd-creds decrypt /etc/credstore.encrypted/digitruck-edge.edhoc DATA/identity/edhoc.key
    """
    folder = _data(config) / "identity"
    keys = {folder / file: name for file, name in CREDENTIALS.items()}
    for path in Sealer(with_key, tpm2_device).seal(keys, UNIT, keep=keep):
        click.echo(f"wrote {path}")
    click.echo("kept the key files" if keep else "deleted the key files")
    click.echo("next  systemctl daemon-reload && systemctl restart digitruck-edge")


def _data(config: Path) -> Path:
    return (config.parent / load_config(config).data).resolve()
