"""What a truck's daemon costs its small PC: resident memory, and bytes written to disk a day, by the kernel's account.

A real `digitruck-edge run` in a process of its own, joined to a real gateway. Writes are taken twice, without any row
and with a row a second, so that the cost of a row and the cost of idling are told apart; a day is 1,440 rows and the
idling of 24 hours.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tests.bench.wire import start_pair

NAME = "footprint"
_SETTLE_S = 75.0  # past the handshake, the hello and the first minute
_WATCH_S = 60.0
_DAY_S = 86_400
_ROWS_A_DAY = 1_440

# A truck installs requirements/edge.lock and nothing else; libraries that use more when it is there (pandas, rich) must
# not find it here either.
_AS_ON_A_TRUCK = """\
import sys
for module in sys.argv.pop(1).split(","):
    sys.modules[module] = None
from edge.__main__ import main
main()
"""
_CONFIG = """\
data = "."
[classroom]
listen = "127.0.0.1:0"
[[link]]
name = "lte"
"""
_COLLECTOR = """\
[[collector]]
kind = "host"
name = "host"
period_s = 1
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """One run: bytes written a second, and the largest resident set in bytes."""

    written_per_s: float
    resident: int


def run(args: list[str]) -> list[tuple[str, str, str, str]]:
    """Return (figure, measured, anchor, limit)."""
    idle, busy = asyncio.run(_measure())
    per_row = max(0.0, busy.written_per_s - idle.written_per_s)
    day = idle.written_per_s * _DAY_S + per_row * _ROWS_A_DAY
    return [
        ("edge resident memory", f"{max(idle.resident, busy.resident) / 1e6:.0f} MB", "mender-client 20 MB", "60 MB"),
        ("edge bytes written a row", f"{per_row / 1e3:.1f} kB", "", ""),
        ("edge bytes written a day, row a minute", f"{day / 1e6:.1f} MB", "", "50 MB"),
    ]


async def _measure() -> tuple[Cost, Cost]:
    with tempfile.TemporaryDirectory(prefix="digitruck-bench-") as name:
        folder = Path(name)
        gateway, edge = await start_pair(folder)
        await edge.close()
        try:
            idle = await _watch(folder / "truck", _CONFIG)
            busy = await _watch(folder / "truck", _CONFIG + _COLLECTOR)
        finally:
            await gateway.close()
    return idle, busy


async def _watch(folder: Path, config: str) -> Cost:
    path = folder / "edge.toml"
    path.write_text(config if "[[collector]]" in config else "collector = []\n" + config)
    process = subprocess.Popen(
        [sys.executable, "-c", _AS_ON_A_TRUCK, ",".join(_absent_on_a_truck()), "run", "--config", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)  # it says where it listens once it has started
        await asyncio.sleep(_SETTLE_S)
        before = _written(process.pid)
        await asyncio.sleep(_WATCH_S)
        written, resident = _written(process.pid) - before, _resident(process.pid)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)
    return Cost(written / _WATCH_S, resident)


def _absent_on_a_truck() -> list[str]:
    lock = (Path(__file__).parents[2] / "requirements" / "edge.lock").read_text()
    held = {_normal(name) for name in re.findall("(?m)^([A-Za-z0-9._-]+)==", lock)} | {"digitruck"}
    owners = metadata.packages_distributions()
    return sorted(module for module, names in owners.items() if not held.intersection(map(_normal, names)))


def _normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def _written(pid: int) -> int:
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "write_bytes":
            return int(value)
    raise AssertionError("the kernel does not account for writes")


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmRSS":
            return int(value.split()[0]) * 1024
    raise AssertionError("the kernel does not tell the resident set")
