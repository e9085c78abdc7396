"""`digitruck-gateway unit` and `digitruck-gateway seal-keys`: as a service, with keys sealed to the machine."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.config import load_config
from gateway.daemon import CREDENTIALS
from store.credentials import KEY_CHOICES, Sealer
from store.units import program, service

UNIT = "digitruck-gateway.service"
_config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("gateway.toml"),
    show_default=True,
    help="The gateway's configuration file.",
)


@click.command()
@_config_option
@click.option("--user", default="digitruck", show_default=True, help="The user that the gateway runs as.")
def unit(config: Path, user: str) -> None:
    """Print a hardened systemd unit for this gateway.

    \b
    Example:
      digitruck-gateway unit --config /srv/digitruck/gateway.toml > /etc/systemd/system/digitruck-gateway.service
      systemctl daemon-reload && systemctl enable --now digitruck-gateway
    """
    command: list[str | Path] = [program("digitruck-gateway"), "serve", "--config", config.absolute()]
    # A port below 1024 may be listened on, nothing else of root's.
    lines = [
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
        "PrivateDevices=yes",
    ]
    click.echo(service("Digitruck gateway", command, user=user, writes=_data(config), lines=lines), nl=False)


@click.command(name="seal-keys")
@_config_option
@click.option("--with-key", type=click.Choice(KEY_CHOICES), default="auto", show_default=True, help="What seals.")
@click.option("--tpm2-device", help="The TPM, e.g. /dev/tpmrm0; found by itself otherwise.")
@click.option("--keep", is_flag=True, help="Leave the key files where they are.")
def seal_keys(config: Path, with_key: str, tpm2_device: str | None, keep: bool) -> None:
    """Move the gateway's key files into systemd credentials, sealed to this machine (and its TPM, if it has one).

    Run it as root, and make a backup before: trucks know the gateway by these keys, a sealed key opens on this machine
    alone, and a backup that is made outside of the service cannot read sealed keys (it says so, and goes without).

    \b
    Example:
      digitruck-gateway seal-keys --with-key tpm2 --config /srv/digitruck/gateway.toml
      systemctl daemon-reload && systemctl restart digitruck-gateway
    Back to files:
      systemd-creds decrypt /etc/credstore.encrypted/digitruck-gateway.edhoc DATA/keys/edhoc.key
    """
    folder = _data(config) / "keys"
    keys = {folder / file: name for file, name in CREDENTIALS.items()}
    for path in Sealer(with_key, tpm2_device).seal(keys, UNIT, keep=keep):
        click.echo(f"wrote {path}")
    click.echo("kept the key files" if keep else "deleted the key files")
    click.echo("next  systemctl daemon-reload && systemctl restart digitruck-gateway")


def _data(config: Path) -> Path:
    return (config.parent / load_config(config).data).resolve()
