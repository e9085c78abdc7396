"""What `digitruck metrics` writes works: a real Prometheus scrapes it, and every query of the dashboard has an answer.

Grafana itself is not started here; what it would ask Prometheus is.
"""

from __future__ import annotations

import json
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from gateway.cli.metrics import dashboard_json
from gateway.rollups import RollupTask
from protocol.numbers import Precedence
from store.fleet.records import Direction, LedgerEntry
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import add_truck
from tests.gateway.running import RunningGateway, now_ms

WAIT_S = 60.0
DASHBOARD: dict[str, Any] = json.loads(dashboard_json())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
VARIABLES = {
    each["name"]: each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"
}


@pytest.fixture
def prometheus() -> str:
    found = shutil.which("prometheus")
    if found is None:
        pytest.skip("no Prometheus here (Debian: apt-get install prometheus)")
    return found


@contextmanager
def running(prometheus: str, config: Path, folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [prometheus, f"--config.file={config}", f"--storage.tsdb.path={folder}", f"--web.listen-address={address}"],
        stdout=log,
        stderr=log,
    )
    try:
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()
        log.close()


def ask(url: str, path: str, **query: str) -> Any:
    with urlopen(f"{url}{path}?{urlencode(query)}", timeout=10) as answer:
        return json.load(answer)["data"]


def answered(url: str, query: str) -> list[Any]:
    """Return the answer to a query once there is one; a rate needs two scrapes."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            found: list[Any] = ask(url, "/api/v1/query", query=query)["result"]
        except OSError as error:  # it is still starting; a query that is wrong is an answer of 400
            if getattr(error, "code", None) == 400:
                raise AssertionError(f"Prometheus refuses {query}") from error
            found = []
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def fill(gateway: RunningGateway) -> None:
    async def work() -> None:
        truck = await add_truck(gateway.fleet)
        await truck.register()
        now_s = now_ms() // 1000
        await truck.batch([(now_s - 120, (2600, 5)), (now_s - 60, (2650, 6))])
        await gateway.fleet.heard("ke-arrow", "sat", now_ms() - 60_000)
        await gateway.fleet.set_desired("ke-arrow", b"d" * 32, b"signed", now_ms())
        sent = LedgerEntry("ke-arrow", "sat", Precedence.NORMAL, "batch", Direction.UP, now_ms(), 1_000, 2)
        await gateway.fleet.ledger_add([sent])
        await RollupTask(gateway.fleet).catch_up()

    gateway.run(work())


def test_a_real_prometheus_scrapes_and_answers_every_query_of_the_dashboard(
    prometheus: str, signed_in: RunningGateway, digitruck: Digitruck, tmp_path: Path
) -> None:
    fill(signed_in)
    digitruck("metrics", "setup", "monitoring")
    config = tmp_path / "monitoring" / "prometheus.yml"
    config.write_text(config.read_text().replace("scrape_interval: 30s", "scrape_interval: 1s"))
    checked = subprocess.run(
        [shutil.which("promtool") or "promtool", "check", "config", str(config)], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (tmp_path / "tsdb").mkdir()
    with running(prometheus, config, tmp_path / "tsdb") as url:
        up = answered(url, 'up{job="digitruck"} == 1')
        assert up, (tmp_path / "tsdb" / "log").read_text()[-2_000:]
        (battery,) = answered(url, 'digitruck_channel_value{truck="ke-arrow", channel="bat_v", unit="V"}')
        assert float(battery["value"][1]) == 26.5
        silent = [query for query in QUERIES if not answered(url, filled(query))]
        assert silent == []
        for name, query in VARIABLES.items():
            metric, label = query.removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
            assert ask(url, f"/api/v1/label/{label}/values", **{"match[]": filled(metric)}), name


def filled(query: str) -> str:
    """Return a query as Grafana sends it when everything is chosen."""
    for name in VARIABLES:
        query = query.replace(f"${name}", ".*")
    return query.replace("$__rate_interval", "1m")


def test_the_metrics_pass_prometheus_own_linter(
    prometheus: str, signed_in: RunningGateway, digitruck: Digitruck
) -> None:
    fill(signed_in)
    digitruck("metrics", "setup", "monitoring")
    import urllib.request

    request = urllib.request.Request(
        f"{signed_in.url}/metrics",
        headers={"Authorization": f"Bearer {Path('monitoring/digitruck.token').read_text()}"},
    )
    with urlopen(request, timeout=30) as answer:
        text = answer.read()
    linted = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    assert (linted.returncode, linted.stderr) == (0, b"")


def test_setup_writes_a_token_that_only_reads_and_keeps_it(
    signed_in: RunningGateway, digitruck: Digitruck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = digitruck("metrics", "setup", "monitoring")
    folder = tmp_path / "monitoring"
    assert str(folder / "prometheus.yml") in ran.out
    token = (folder / "digitruck.token").read_text()
    assert stat.S_IMODE((folder / "digitruck.token").stat().st_mode) == 0o600
    assert token not in (folder / "prometheus.yml").read_text() + ran.out
    digitruck("metrics", "setup", "monitoring")
    assert (folder / "digitruck.token").read_text() == token
    assert digitruck("metrics", "setup", "elsewhere", ok=False).code == 2
    assert digitruck("metrics", "setup", "elsewhere", "--name", "second").code == 0
    monkeypatch.setenv("DIGITRUCK_TOKEN", token)
    monkeypatch.setenv("DIGITRUCK_URL", signed_in.url)
    assert digitruck("trucks").code == 0
    assert digitruck("revoke", "ke-arrow", "--yes", ok=False).code == 1


@pytest.mark.parametrize(
    ("url", "target", "path"),
    [
        ("https://fleet.example.org", "fleet.example.org:443", "/metrics"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", "/metrics"),
        ("https://[2001:db8::1]:8443/fleet", "[2001:db8::1]:8443", "/fleet/metrics"),
    ],
)
def test_the_scrape_configuration_names_the_gateway(url: str, target: str, path: str) -> None:
    from gateway.cli.metrics import _scrape_config

    text = _scrape_config(url, Path("/etc/prometheus/digitruck.token"))
    assert f'targets: ["{target}"]' in text
    assert f'metrics_path: "{path}"' in text
    assert f"scheme: {url.partition(':')[0]}" in text


def test_the_dashboard_is_written_and_asks_for_nothing_outside(digitruck: Digitruck, tmp_path: Path) -> None:
    digitruck("metrics", "dashboard", "fleet.json")
    shown = json.loads((tmp_path / "fleet.json").read_text())
    assert shown == DASHBOARD
    panels = shown["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["targets"] and panel["title"] for panel in panels)
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert "http" not in json.dumps(shown).replace("https://", "http://").replace("schema", "")
    cells = [
        (panel["gridPos"]["x"] + at, panel["gridPos"]["y"]) for panel in panels for at in range(panel["gridPos"]["w"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
