"""21 workstations at once on the classroom's service: pages, films by ranges, and what it costs the truck's computer.

The service runs in a process of its own, as on the truck; the workstations share this one, so that their cost is not
the truck's. Each opens small pages and seeks in a film, as a browser does.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp

from edge.classroom import make_classroom
from edge.classroom_server import ClassroomServer
from edge.config import ClassroomSettings
from edge.pages import ServedBundle

NAME = "classroom"
WORKSTATIONS = 21
SECONDS = 15.0
_FILM_BYTES, _PAGE_BYTES, _SEEK_BYTES = 200_000_000, 20_000, 2_000_000


class _Content:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def active(self, name: str) -> Path | None:
        return self._folder if name == "maths" else None

    def bundles(self) -> list[ServedBundle]:
        return [ServedBundle("maths", "1")]

    def by_digest(self, digest: bytes) -> Path | None:
        return None


def _serve(folder: Path, answers: Connection) -> None:
    async def work() -> None:
        settings = ClassroomSettings(listen="127.0.0.1:0")
        app = make_classroom(settings, recorder=None, status=None, content=_Content(folder))  # type: ignore[arg-type]
        server = ClassroomServer(app, settings.listen)
        await server.start()
        before = _peak_bytes()
        answers.send(server.address)
        await asyncio.to_thread(answers.recv)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        answers.send((usage.ru_utime + usage.ru_stime, _peak_bytes() - before))
        await server.stop()

    asyncio.run(work())


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def run(args: list[str]) -> list[tuple[str, str, str, str]]:
    """Serve for a while; return throughput, waits and cost."""
    seconds = float(args[0]) if args else SECONDS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "page.html").write_bytes(os.urandom(_PAGE_BYTES))
        with (folder / "film.mp4").open("wb") as film:
            for _ in range(_FILM_BYTES // 1_000_000):
                film.write(os.urandom(1_000_000))
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(folder, theirs))
        process.start()
        try:
            address = ours.recv()
            waits, carried, failed = asyncio.run(_classroom(address, seconds))
            ours.send(None)
            cpu_s, rss = ours.recv()
        finally:
            process.join(10)
            process.kill()
    waits.sort()
    return [
        (f"{WORKSTATIONS} workstations, films and pages", f"{carried / seconds / 1e6:.0f} MB/s", "-", "-"),
        ("  a page's wait beside them, p50", f"{1000 * waits[len(waits) // 2]:.0f} ms", "-", "-"),
        ("  a page's wait beside them, p99", f"{1000 * waits[len(waits) * 99 // 100]:.0f} ms", "-", "-"),
        ("  requests that failed", f"{failed} of {len(waits)}", "-", "0"),
        ("  processor of the service", f"{cpu_s / (carried / 1e9):.2f} s/GB", "-", "-"),
        ("  memory of the service beyond its start", f"{rss / 1e6:.0f} MB", "-", "-"),
    ]


async def _classroom(address: tuple[str, int], seconds: float) -> tuple[list[float], int, int]:
    waits: list[float] = []
    carried = failed = 0
    base = f"http://{address[0]}:{address[1]}/content/maths/"
    end = time.monotonic() + seconds

    async def workstation(number: int) -> None:
        nonlocal carried, failed
        chance = random.Random(number)
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < end:
                began = time.monotonic()
                async with session.get(base + "page.html") as page:
                    body = await page.read()
                    failed += page.status != 200 or len(body) != _PAGE_BYTES
                waits.append(time.monotonic() - began)
                at = chance.randrange(_FILM_BYTES - _SEEK_BYTES)
                headers = {"Range": f"bytes={at}-{at + _SEEK_BYTES - 1}"}
                async with session.get(base + "film.mp4", headers=headers) as film:
                    body = await film.read()
                    failed += film.status != 206 or len(body) != _SEEK_BYTES
                carried += len(body) + _PAGE_BYTES

    await asyncio.gather(*(workstation(number) for number in range(WORKSTATIONS)))
    return waits, carried, failed
