"""Against Debian's upsd with its driver for a UPS that is a file, and against peers that lie."""

from __future__ import annotations

import getpass
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.collectors.nut import NutCollector, NutSettings, explain, read_channel
from tests.edge.collectors.peers import Peer, failure, free_port, liar, listens, program, sample, watched

ALL = ("charge", "runtime", "battery_v", "input_v", "output_v", "load", "temperature", "on_battery", "low_battery")
STATE = {
    "battery.charge": "87",
    "battery.runtime": "1830",
    "battery.voltage": "27.31",
    "input.voltage": "229.6",
    "output.voltage": "nan",
    "ups.load": "1e308",
    "ups.status": "OB DISCHRG LB",
}


def collector(port: int, **values: object) -> NutCollector:
    return NutCollector(NutSettings(kind="nut", name="ups", port=port, **values))


def write_state(path: Path, state: dict[str, str]) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text("".join(f"{name}: {value}\n" for name, value in state.items()))
    fresh.chmod(0o666)
    fresh.rename(path)


@pytest.fixture(scope="module")
def upsd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A running upsd whose UPS `ups` is the file `state`; its sockets want a short path."""
    server, driver = program("upsd", "nut-server"), program("dummy-ups", "nut-server")
    folder = tmp_path_factory.mktemp("nut")
    port = free_port()
    folder.chmod(0o777)
    state = folder / "state.dev"
    write_state(state, STATE)
    (folder / "ups.conf").write_text(
        "[ups]\n driver = dummy-ups\n port = state.dev\n mode = dummy-loop\n pollinterval=1\n"
    )
    (folder / "upsd.conf").write_text(f"LISTEN 127.0.0.1 {port}\nMAXAGE 60\n")
    (folder / "upsd.users").write_text("")
    for name in ("ups.conf", "upsd.conf", "upsd.users"):
        (folder / name).chmod(0o640)
    env = {"NUT_CONFPATH": str(folder), "NUT_STATEPATH": str(folder), "NUT_ALTPIDPATH": str(folder)}
    me = getpass.getuser()
    driving = Peer([driver, "-F", "-u", me, "-a", "ups"], folder, env)
    serving = Peer([server, "-F", "-u", me], folder, env)
    try:
        driving.start(lambda: any(folder.glob("dummy-ups-ups")))
        serving.start(listens(port))
        yield SimpleNamespace(port=port, state=state, serving=serving, ready=listens(port))
    finally:
        serving.stop()
        driving.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def test_a_ups_is_read_and_what_it_cannot_be_is_missing(upsd, monkeypatch):
    async with watched(collector(upsd.port, channels=ALL, period_s=0.05), monkeypatch) as watch:
        await watch.until(lambda: watch.rows[-1:] != [] and None not in watch.rows[-1][:1])  # its driver waits first
    assert await sample(collector(upsd.port, channels=ALL)) == {
        "ups.charge": "87",
        "ups.runtime": "30",
        "ups.battery_v": "27.3",
        "ups.input_v": "230",
        "ups.output_v": "",
        "ups.load": "",
        "ups.temperature": "",
        "ups.on_battery": "1",
        "ups.low_battery": "1",
    }


async def test_a_upsd_that_ends_is_found_out_and_read_again_when_it_is_back(upsd, monkeypatch):
    async with watched(collector(upsd.port, period_s=0.05), monkeypatch) as watch:
        await watch.more()
        upsd.serving.stop()
        assert await watch.failed()
        upsd.serving.start(upsd.ready)
        await watch.more()
        # The state file changes under a running driver.
        write_state(upsd.state, STATE | {"battery.charge": "42"})
        await watch.until(lambda: watch.rows[-1][0] == 42)


async def test_a_ups_that_is_not_there_is_named(upsd):
    assert "no UPS called 'gone'" in await failure(collector(upsd.port, ups="gone"))


def test_each_refusal_says_what_to_do():
    assert "cable" in explain("DATA-STALE", "ups")
    assert "upsdrvctl start" in explain("DRIVER-NOT-CONNECTED", "ups")
    assert explain("X" * 1000, "ups") == "upsd answered '" + "X" * 40 + "'"


async def test_a_list_without_end_is_given_up():
    async with liar(b'VAR ups a "1"\n' * 2000) as port:
        assert "more than 300" in await failure(collector(port))


async def test_lines_that_are_no_variables_are_passed_over():
    lines = b'\xff\x00\nVAR ups\nVAR ups battery.charge "7\\"7"\nVAR ups ups.load "12"\nEND LIST VAR ups\n'
    async with liar(lines, hold=True) as port:
        assert await sample(collector(port, channels=("charge", "load", "on_battery"))) == {
            "ups.charge": "",
            "ups.load": "12",
            "ups.on_battery": "",
        }


@pytest.mark.parametrize(
    ("name", "said", "value"),
    [
        ("on_battery", {"ups.status": "OL CHRG"}, 0),
        ("on_battery", {"ups.status": ""}, None),
        ("on_battery", {"ups.status": "WAIT"}, None),
        ("runtime", {"battery.runtime": "90"}, 2),
        ("runtime", {"battery.runtime": "-90"}, None),
        ("charge", {"battery.charge": "١٠"}, None),
        ("charge", {"battery.charge": "100.4"}, None),
        ("battery_v", {"battery.voltage": "13.26"}, 133),
    ],
)
def test_values_are_scaled_and_what_cannot_be_is_missing(name: str, said: dict[str, str], value: int | None):
    assert read_channel(name, said) == value


@pytest.mark.parametrize(("channels", "says"), [(("charge", "charge"), "twice"), (("power",), "no 'power'")])
def test_channels_that_are_not_there_are_refused(channels, says: str):
    with pytest.raises(ValueError, match=says):
        NutSettings(kind="nut", name="ups", channels=channels).check()
