"""Which board this is: a byte string that names the hardware, so that a disk which was cloned to another is noticed.

A serial number of the board where the kernel shows one, else the address of a network port that is soldered on. What
can be unplugged (a USB modem) or is made up (containers, bridges) names nothing. Deliberately absent: the CPU, which
has no name, and /etc/machine-id, which a clone shares.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

_SERIALS = (
    "firmware/devicetree/base/serial-number",
    "class/dmi/id/board_serial",
    "class/dmi/id/product_uuid",
)
# What makers write into a field that they did not fill in.
_BLANK = frozenset({"", "none", "default string", "to be filled by o.e.m.", "not specified", "system serial number"})


def board_name(sys_folder: Path = Path("/sys")) -> bytes:
    """Return 16 bytes that name this board, or none when there is nothing to name it by."""
    for place in _SERIALS:
        text = _read(sys_folder / place)
        if text.casefold() not in _BLANK and text.strip("0-") != "":
            return _named(f"{place}:{text}")
    for port in sorted((sys_folder / "class/net").glob("*")):
        device = port / "device"
        # A port of its own bus: not a USB stick, and nothing virtual.
        if device.exists() and "/usb" not in str(device.resolve()) and "/virtual/" not in str(device.resolve()):
            address = _read(port / "address")
            if address.strip("0:") != "":
                return _named(f"net:{address}")
    return b""


def _named(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""
