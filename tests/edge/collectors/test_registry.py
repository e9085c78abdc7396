from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from edge.collectors import registry
from edge.collectors.host import HostCollector
from edge.collectors.registry import (
    BUILT_IN,
    CollectorConfigError,
    build_collectors,
    find_collector,
    known_kinds,
    plan_collectors,
)
from edge.collectors.replay import ReplayCollector
from edge.collectors.vedirect import VeDirectCollector
from edge.config import DEFAULT_TEXT

TOML = """
[[collector]]
kind = "host"
name = "box"
period_s = 60
channels = ["cpu", "uptime"]

[[collector]]
kind = "vedirect"
name = "solar"
port = "/dev/ttyUSB0"
"""


def tables(text: str = TOML) -> list[dict[str, object]]:
    return tomllib.loads(text)["collector"]


def offer(monkeypatch, *points: tuple[str, str]) -> None:
    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == "digitruck.collectors"
        return [EntryPoint(n, value, group) for n, value in points if name in (None, n)]

    monkeypatch.setattr(registry, "entry_points", entry_points)


def test_a_checkout_without_metadata_knows_the_built_in_kinds(monkeypatch):
    offer(monkeypatch)
    assert known_kinds() == tuple(BUILT_IN)
    assert [find_collector(kind) for kind in ("host", "replay", "vedirect")] == [
        HostCollector,
        ReplayCollector,
        VeDirectCollector,
    ]


def test_the_built_in_kinds_are_those_that_an_install_offers():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["digitruck.collectors"] == dict(BUILT_IN)


def test_the_examples_of_the_readme_hold_and_show_every_kind():
    text = (Path(__file__).parents[3] / "README.md").read_text()
    section = text.partition("## Instruments\n")[2].partition("\n## ")[0]
    examples = tables("\n".join(line[4:] for line in section.splitlines() if line.startswith("    ")))
    assert {each["kind"] for each in examples} == set(BUILT_IN) - {"replay"}
    built = build_collectors(plan_collectors(examples))
    assert built.problems == ()
    assert len(built.collectors) == len(examples)


def test_the_written_configuration_names_every_kind():
    assert [kind for kind in BUILT_IN if kind not in DEFAULT_TEXT] == []


@pytest.mark.parametrize("kind", sorted(BUILT_IN))
def test_each_kind_has_settings_that_say_what_they_lack(kind: str):
    with pytest.raises(CollectorConfigError) as caught:
        plan_collectors([{"kind": kind, "name": "x", "no_such_key": 1}])
    assert caught.value.key == "collector[0].no_such_key"
    assert "its keys are: kind, name, period_s, prefix" in caught.value.reason


def test_no_kind_loads_what_only_another_needs():
    # Each of these costs megabytes: they are loaded when their collector starts, not when its settings are read.
    code = (
        "import sys; from edge.collectors.registry import BUILT_IN, find_collector; "
        "[find_collector(kind) for kind in BUILT_IN]; "
        "print(sorted({'pysnmp', 'grpc', 'dbus_fast', 'icmplib', 'serial', 'starlink_grpc'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "[]\n"


def test_anothers_entry_point_adds_a_kind(monkeypatch):
    offer(monkeypatch, ("weather", "edge.collectors.host:HostCollector"))
    assert "weather" in known_kinds()
    (plan,) = plan_collectors([{"kind": "weather", "name": "roof"}])
    assert plan.collector_type is HostCollector


def test_an_entry_point_that_does_not_load_harms_only_its_own_kind(monkeypatch):
    offer(monkeypatch, ("broken", "no.such.module:Thing"), ("odd", "os:path"))
    for kind, says in (("broken", "does not load"), ("odd", "not a collector")):
        with pytest.raises(CollectorConfigError, match=says) as caught:
            plan_collectors([{"kind": kind, "name": "x"}])
        assert caught.value.key == "collector[0].kind"
    assert plan_collectors([{"kind": "host", "name": "box"}])


def test_two_packages_with_one_kind_are_refused_not_guessed(monkeypatch):
    offer(monkeypatch, ("host", "a:A"), ("host", "b:B"))
    with pytest.raises(LookupError, match="2 installed packages"):
        find_collector("host")


def test_tables_become_settings():
    box, solar = plan_collectors(tables())
    assert (box.settings.name, box.settings.period_s, box.settings.channels) == ("box", 60.0, ("cpu", "uptime"))
    assert (solar.collector_type, solar.settings.port) == (VeDirectCollector, "/dev/ttyUSB0")
    built = build_collectors((box, solar))
    assert [collector.name for collector in built.collectors] == ["box", "solar"]
    assert built.problems == ()


@pytest.mark.parametrize(
    ("table", "key", "says"),
    [
        ({"name": "x"}, "collector[0].kind", "is missing"),
        ({"kind": 3, "name": "x"}, "collector[0].kind", "is missing"),
        ({"kind": "nope", "name": "x"}, "collector[0].kind", "csv-tail, gpsd, host"),
        ({"kind": "host"}, "collector[0].name", "is missing"),
        ({"kind": "host", "name": "Bad Name"}, "collector[0].name", "regex"),
        ({"kind": "host", "name": "x", "perod_s": 1}, "collector[0].perod_s", "period_s"),
        ({"kind": "host", "name": "x", "period_s": "1"}, "collector[0].period_s", "Expected `float`"),
        ({"kind": "host", "name": "x", "period_s": 0}, "collector[0].period_s", "> 0"),
        ({"kind": "host", "name": "x", "period_s": float("nan")}, "collector[0].period_s", ""),
        ({"kind": "host", "name": "x", "period_s": float("inf")}, "collector[0].period_s", ""),
        ({"kind": "host", "name": "x", "channels": ["cpu", "gpu"]}, "collector[0].channels[1]", "gpu"),
        ({"kind": "host", "name": "x", "channels": ["cpu", "cpu"]}, "collector[0].channels", "twice"),
        ({"kind": "replay", "name": "x", "file": "y", "units": {"a": "foot"}}, "collector[0].units.a", "foot"),
        ({"kind": "vedirect", "name": "x"}, "collector[0].port", "either"),
        ("host", "collector[0]", "table"),
    ],
)
def test_a_wrong_table_names_its_key(table, key: str, says: str):
    with pytest.raises(CollectorConfigError) as caught:
        plan_collectors([table])
    assert caught.value.key == key
    assert says in caught.value.reason


def test_names_are_unique_and_their_number_is_bounded():
    with pytest.raises(CollectorConfigError, match="used twice") as caught:
        plan_collectors([{"kind": "host", "name": "x"}] * 2)
    assert caught.value.key == "collector[1].name"
    with pytest.raises(CollectorConfigError, match="at most 64"):
        plan_collectors([{"kind": "host", "name": f"x{n}"} for n in range(65)])


def test_one_collector_that_cannot_be_built_does_not_stop_the_others(tmp_path):
    plans = plan_collectors(
        [
            {"kind": "replay", "name": "gone", "file": str(tmp_path / "gone.csv")},
            {"kind": "host", "name": "box"},
            {"kind": "host", "name": "twin", "prefix": "box."},
        ]
    )
    built = build_collectors(plans)
    assert [collector.name for collector in built.collectors] == ["box"]
    assert [problem.name for problem in built.problems] == ["gone", "twin"]
    assert "is not a file" in built.problems[0].error
    assert "already box's" in built.problems[1].error
