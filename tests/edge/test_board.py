"""What names a board does not change with what is plugged in, and what names nothing is not taken for a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.board import board_name


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def port(sys_folder: Path, name: str, address: str, bus: str | None) -> None:
    write(sys_folder / "class/net" / name / "address", address + "\n")
    if bus is not None:
        (sys_folder / "devices" / bus).mkdir(parents=True, exist_ok=True)
        (sys_folder / "class/net" / name / "device").symlink_to(sys_folder / "devices" / bus)


def test_a_serial_number_names_the_board(tmp_path: Path) -> None:
    write(tmp_path / "firmware/devicetree/base/serial-number", "10000000abcd\0")
    name = board_name(tmp_path)
    assert len(name) == 16
    port(tmp_path, "eth0", "02:00:00:00:00:01", "platform/soc")
    assert board_name(tmp_path) == name
    write(tmp_path / "firmware/devicetree/base/serial-number", "10000000abce\0")
    assert board_name(tmp_path) != name


@pytest.mark.parametrize("text", ["", "None", "To be filled by O.E.M.", "Default string", "0000000", "0"])
def test_a_field_that_the_maker_left_empty_names_nothing(tmp_path: Path, text: str) -> None:
    write(tmp_path / "class/dmi/id/board_serial", text)
    assert board_name(tmp_path) == b""


def test_a_port_that_is_soldered_on_names_the_board(tmp_path: Path) -> None:
    port(tmp_path, "eth1", "02:00:00:00:00:01", "pci0000:00/0000:00:1f.6")
    name = board_name(tmp_path)
    assert len(name) == 16
    port(tmp_path, "eth0", "02:00:00:00:00:02", "pci0000:00/0000:00:14.0/usb1/1-3/1-3:1.0")
    assert board_name(tmp_path) == name  # a modem that is plugged in changes nothing


@pytest.mark.parametrize("bus", [None, "virtual/net/veth0", "pci0000:00/usb2/2-1"])
def test_what_can_be_unplugged_or_is_made_up_names_nothing(tmp_path: Path, bus: str | None) -> None:
    port(tmp_path, "eth0", "02:00:00:00:00:02", bus)
    assert board_name(tmp_path) == b""


def test_this_board_keeps_its_name() -> None:
    assert board_name() == board_name()
