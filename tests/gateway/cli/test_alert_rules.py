"""The alert rules that are shipped: promtool accepts them, they fire when they should, and name metrics that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.cli.metrics import alert_rules

RULES = alert_rules().decode()
# One truck that fell silent four days before time 0 and has a low battery; a gateway that goes away.
UNIT_TEST = """
rule_files: [alerts.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'up{job="digitruck",instance="g"}', values: '1x10 0x30'}
      - {series: 'digitruck_truck_last_heard_timestamp_seconds{truck="ke-arrow",group="k"}', values: '-345600x60'}
      - {series: 'digitruck_truck_last_heard_timestamp_seconds{truck="cd-fine",group="k"}', values: '0x60'}
      - {series: 'digitruck_channel_value{truck="ke-arrow",channel="s.soc",unit="%EL"}', values: '12x60'}
      - {series: 'digitruck_channel_timestamp_seconds{truck="ke-arrow",channel="s.soc",unit="%EL"}', values: '0x60'}
    alert_rule_test:
      - {eval_time: 9m, alertname: DigitruckGatewayDown}
      - eval_time: 20m
        alertname: DigitruckGatewayDown
        exp_alerts:
          - exp_labels: {severity: critical, job: digitruck, instance: g}
            exp_annotations:
              summary: The gateway at g does not answer.
              description: "Trucks keep what they have; on its machine: systemctl status digitruck-gateway"
      - eval_time: 1m
        alertname: DigitruckTruckSilent
        exp_alerts:
          - exp_labels: {severity: warning, truck: ke-arrow, group: k}
            exp_annotations:
              summary: ke-arrow was not heard for 4d 0h 1m 0s.
              description: Is it on tour, switched off, is the SIM paid? Call the site.
      - {eval_time: 1m, alertname: DigitruckTruckLost}
      - {eval_time: 5m, alertname: DigitruckBatteryLow}
      - eval_time: 15m
        alertname: DigitruckBatteryLow
        exp_alerts:
          - exp_labels: {severity: warning, truck: ke-arrow, channel: s.soc, unit: '%EL'}
            exp_annotations:
              summary: The battery of ke-arrow is at 12 % (s.soc).
              description: Switch off what is not needed; look at the solar chart.
"""


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool here (Debian: apt-get install prometheus)")
    return found


def test_promtool_accepts_the_rules_and_they_fire_when_they_should(promtool: str, tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(RULES)
    (tmp_path / "test.yml").write_text(UNIT_TEST)
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "test.yml"]):
        done = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_of_a_rule_is_one_that_the_gateway_tells() -> None:
    sources = Path(__file__).parents[3] / "gateway" / "api"
    told = set(re.findall(r"digitruck_[a-z_]+", "".join(each.read_text() for each in sources.glob("*metrics.py"))))
    # The client library adds `_total` to counters.
    asked = {name.removesuffix("_total") for name in re.findall(r"digitruck_[a-z_]+", RULES)}
    assert asked
    assert asked <= told


def test_every_alert_says_what_to_do() -> None:
    alerts = RULES.split("- alert: ")[1:]
    assert len(alerts) >= 9
    assert all("summary:" in each and "description:" in each and "severity:" in each for each in alerts)
