"""`digitruck metrics`: what Prometheus and Grafana need to watch the fleet, written out ready to use."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import click

from gateway.cli.files import write_private
from gateway.cli.output import examples, note, say
from gateway.cli.session import gateway, load_session
from gateway.client import ApiError

_DASHBOARD = "digitruck-fleet.json"
_TOKEN = "digitruck.token"  # noqa: S105 - the name of a file
_SCRAPE = "prometheus.yml"
_ALERTS = "digitruck-alerts.yml"
_INTERVAL_S = 30


@click.group(epilog=examples("digitruck metrics setup ./monitoring", "digitruck metrics dashboard fleet.json"))
def metrics() -> None:
    """Watch the fleet with Prometheus and Grafana."""


@metrics.command(
    "setup",
    epilog=examples(
        "digitruck metrics setup /etc/prometheus/digitruck",
        "digitruck metrics setup ./monitoring --name prometheus-2",
    ),
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", default="prometheus", show_default=True, help="The name of the viewer token that is made.")
def setup(folder: Path, name: str) -> None:
    """Write into FOLDER a scrape configuration, alert rules, a viewer token and a Grafana dashboard.

    The token (0600) lets its holder read, and nothing else; one that is there is kept. Signing in as an admin is needed
    to make one. The dashboard is imported in Grafana under Dashboards, New, Import.
    """
    folder = folder.resolve()
    token = folder / _TOKEN
    if not token.exists():
        with gateway() as client:
            try:
                made = client.create_token(name, role="viewer")
            except ApiError as error:
                if error.status == 409:
                    raise click.UsageError(
                        f"a token called {name} was given out before: choose another --name"
                    ) from error
                raise
        write_private(token, made.token.encode())
    write_private(folder / _SCRAPE, _scrape_config(load_session().url, token).encode())
    write_private(folder / _ALERTS, alert_rules())
    write_private(folder / _DASHBOARD, dashboard_json())
    say(f"{folder / _SCRAPE}: start it with prometheus --config.file={folder / _SCRAPE}")
    say(f"{folder / _ALERTS}: alert rules that it loads; promtool check rules says whether an edited one holds")
    say(f"{token}: the token that it reads; let Prometheus' user own it")
    say(f"{folder / _DASHBOARD}: import it in Grafana")


@metrics.command("dashboard", epilog=examples("digitruck metrics dashboard digitruck-fleet.json"))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def dashboard(file: Path) -> None:
    """Write the Grafana dashboard to FILE."""
    write_private(file, dashboard_json())
    note(f"{file}: import it in Grafana (Dashboards, New, Import) and choose the Prometheus that scrapes the gateway")


def dashboard_json() -> bytes:
    """Return the dashboard that this release ships."""
    return (files("gateway") / "dashboards" / "fleet.json").read_bytes()


def alert_rules() -> bytes:
    """Return the alert rules that this release ships."""
    return (files("gateway") / "dashboards" / "alerts.yml").read_bytes()


def _scrape_config(url: str, token: Path) -> str:
    address = urlsplit(url)
    port = address.port or (443 if address.scheme == "https" else 80)
    host = f"[{address.hostname}]" if ":" in (address.hostname or "") else address.hostname
    path = address.path.rstrip("/") + "/metrics"
    # JSON's strings are YAML's, too.
    return f"""# What `digitruck metrics setup` wrote; the job can be copied into another configuration.
global:
  scrape_interval: {_INTERVAL_S}s
rule_files:
  - {_ALERTS}
scrape_configs:
  - job_name: digitruck
    scheme: {address.scheme}
    metrics_path: {json.dumps(path)}
    authorization:
      credentials_file: {json.dumps(str(token))}
    static_configs:
      - targets: [{json.dumps(f"{host}:{port}")}]
"""
