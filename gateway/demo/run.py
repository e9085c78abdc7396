"""`digitruck-gateway demo`: a gateway and trucks as real processes over emulated links, watched until the end.

Needs no root and no network but 127.0.0.1. Whatever happens, every process that was started is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.live import Live

from gateway.answers import Coverage
from gateway.client import ApiError, Client, UnreachableError
from gateway.demo.children import environment_for
from gateway.demo.picture import LinkPicture, Picture, TruckPicture, VersionPicture, plain, render
from gateway.demo.server import DemoGateway, choose_ports
from gateway.demo.story import BUNDLE, EDITIONS, LINKS, Story, carried
from gateway.demo.summary import Result, TruckResult, failures, report
from gateway.demo.trucks import DemoTruck
from gateway.fleetfile import load_fleet
from protocol.errors import DigitruckError, LocalError

_LOOK_S = 1.0
_PLAIN_S = 5.0
_LAST_LOOKS = 20
# A slow machine gets this much longer to show everything once its time is up.
_GRACE_S = 60.0
_ASK_S = 3.0
_USUAL_HTTP_PORT = 8080
_FIRST_TRUCKS = ("ke-arrow", "cd-kinshasa", "tz-arrow")  # one that tours, one far from everything, one on a mountain


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """How the demo is run; `seconds` None: until Ctrl-C. Without `folder` a temporary one is used and removed.

    `until_told` ends it as soon as everything was shown.
    """

    trucks: int = 3
    seconds: float | None = None
    http: int | None = None
    coap: int | None = None
    folder: Path | None = None
    seed: int = 1
    until_told: bool = False


async def run_demo(options: DemoOptions, console: Console) -> int:
    """Run the demo; return 0 if all that should work did, 1 if not. Raises `LocalError` for what cannot start."""
    folder = _folder(options.folder)
    demo = _Demo(options, folder, console)
    wrong: list[str] = ["it did not come to its end"]
    try:
        wrong = await demo.run()
    finally:
        await demo.end()
        if options.folder is None and not wrong:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            console.print(f"data, keys and logs are kept in {folder}", highlight=False, soft_wrap=True)
    return 1 if wrong else 0


class _Demo:
    def __init__(self, options: DemoOptions, folder: Path, console: Console) -> None:
        self._options = options
        self._console = console
        self._events: list[str] = []
        self._live: Live | None = None
        self._covered: dict[str, Coverage] = {}
        environment = environment_for(folder)
        ports = choose_ports(coap=options.coap, http=options.http, usual_http=_USUAL_HTTP_PORT)
        self.gateway = DemoGateway(folder / "gateway", ports, environment, lambda event, fields: None)
        fleet = load_fleet()
        chosen = sorted(fleet, key=lambda each: (each.name not in _FIRST_TRUCKS, fleet.index(each)))[: options.trucks]
        self.story = Story(tuple(chosen), self.gateway, folder, environment, seed=options.seed, say=self._say)

    async def run(self) -> list[str]:
        """Show everything until the time is up; print the summary and return what went wrong."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        telling = asyncio.create_task(self.story.tell(), name="story")
        telling.add_done_callback(lambda task: stop.set())
        inviting = asyncio.create_task(self._invite(), name="invite")
        watching = asyncio.create_task(self._watch(), name="watch")
        watching.add_done_callback(lambda task: stop.set())
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4)
            self._live.start()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.seconds):
                    await (self.story.told if self._options.until_told else stop).wait()
            if not self.story.told.is_set() and not stop.is_set():
                self._say(f"time is up, but not everything was shown on this machine: up to {_GRACE_S:.0f} s more")
                await self._first_of(self.story.told, stop)
            result = await self._result(telling, watching)
        finally:
            for task in (telling, watching, inviting):
                task.cancel()
            await asyncio.gather(telling, watching, inviting, return_exceptions=True)
            if self._live is not None:
                self._live.stop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        wrong = failures(result)
        self._print("")
        for line in report(result):
            self._print(line)
        for each in wrong:
            self._print(f"NOT AS IT SHOULD BE: {each}")
        self._print("" if wrong else "everything that should work did")
        return wrong

    @staticmethod
    async def _first_of(told: asyncio.Event, stop: asyncio.Event) -> None:
        waits = [asyncio.create_task(told.wait()), asyncio.create_task(stop.wait())]
        await asyncio.wait(waits, timeout=_GRACE_S, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()

    async def end(self) -> None:
        """End every process."""
        await asyncio.gather(*(each.end() for each in self.story.trucks), self.gateway.end(), return_exceptions=True)

    def _say(self, text: str) -> None:
        self._events.append(f"{self.story.passed_s:5.1f} s  {text}")
        if self._live is None:
            self._print(self._events[-1])
        if text.startswith("gateway serves"):
            self._print(f"  API documentation  {self.gateway.url}/v1/docs")
            self._print(f"  command line       digitruck login {self.gateway.url} --token {self.gateway.token}")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    async def _invite(self) -> None:
        """Print a one-time link to the console as soon as there is one."""
        while True:
            try:
                if self.gateway.token:
                    async with Client(self.gateway.url, self.gateway.token) as client:
                        link = await client.sign_in_link()
                    self._print(f"  console            {self.gateway.url}{link.path}")
                    return
            except (ApiError, UnreachableError):
                pass
            await asyncio.sleep(_LOOK_S / 4)

    async def _watch(self) -> None:
        shown_s = 0.0
        async with aiohttp.ClientSession() as http:
            while True:
                picture = await self._look(http)
                if self._live is not None:
                    self._live.update(render(picture, title="Digitrucks", hint=self._hint()))
                elif self._any_runs() and self.story.passed_s - shown_s >= _PLAIN_S:
                    shown_s = self.story.passed_s
                    for line in plain(picture):
                        self._print(line)
                await asyncio.sleep(_LOOK_S)

    def _any_runs(self) -> bool:
        return any(each.classroom for each in self.story.trucks)

    def _hint(self) -> str:
        left = self._options.seconds
        return "Ctrl-C ends it" if left is None else f"ends by itself after {left:.0f} s"

    async def _look(self, http: aiohttp.ClientSession) -> Picture:
        """Ask the gateway first and the trucks then: so that no row can have arrived that was not recorded."""
        trucks = list(self.story.trucks)
        if self.story.client is not None and self.gateway.running:
            await asyncio.gather(*(self._ask_gateway(self.story.client, each) for each in trucks))
        await asyncio.gather(*(each.ask(http) for each in trucks))
        return Picture(
            self.story.passed_s,
            self.gateway.running,
            tuple(self._truck_picture(each) for each in trucks),
            self._events,
        )

    async def _ask_gateway(self, client: Client, truck: DemoTruck) -> None:
        with contextlib.suppress(ApiError, UnreachableError, TimeoutError):
            async with asyncio.timeout(_ASK_S):
                coverage = await client.coverage(truck.name)
                self._covered[truck.name] = coverage
                self.story.arrived[truck.name] = coverage.rows
                if coverage.rows and self.story.first_sample_s is None:
                    self.story.first_sample_s = self.story.passed_s
                    self._say(f"{truck.name}: the first samples are at the gateway")

    def _truck_picture(self, truck: DemoTruck) -> TruckPicture:
        coverage, says, described = self._covered.get(truck.name), truck.says, self.story.fleet[truck.name]
        prices = {each.name: each for each in LINKS}
        return TruckPicture(
            name=truck.name,
            place=f"{described.place}, {described.country_code}",
            rows_recorded=truck.rows,
            rows_arrived=coverage.rows if coverage is not None else 0,
            batches=coverage.batches if coverage is not None else 0,
            queued=says.queued if says is not None else 0,
            links=tuple(
                LinkPicture(
                    each.name,
                    each.usable,
                    each.rtt_s,
                    each.spent_bytes,
                    each.spent_bytes * prices[each.name].price_per_mb_milli / 1_000_000,
                    prices[each.name].currency,
                )
                for each in (says.links if says is not None else ())
            ),
            versions=tuple(
                VersionPicture(
                    each.name,
                    each.desired,
                    each.active,
                    each.received_bytes / each.wanted_bytes if each.wanted_bytes else None,
                )
                for each in (says.versions if says is not None else ())
            ),
        )

    async def _result(self, *tasks: asyncio.Task[None]) -> Result:
        story = self.story
        troubles = list(story.troubles)
        ended = [task.exception() for task in tasks if task.done() and not task.cancelled()]
        troubles += [_reason(failure) for failure in ended if failure is not None]
        async with aiohttp.ClientSession() as http, Client(self.gateway.url, self.gateway.token) as client:
            if self.gateway.running:
                story.client = client
            picture = await self._look(http)
            # What is under way when the story ends is not lost: it gets the time that a slow link takes.
            for _ in range(_LAST_LOOKS):
                if not any(self._missing(each.name) for each in story.trucks):
                    break
                await asyncio.sleep(_LOOK_S)
                picture = await self._look(http)
            ledgers = {each.name: await self._ledger(client, each.name) for each in story.trucks}
        results = []
        for truck, shown in zip(story.trucks, picture.trucks, strict=True):
            before = story.carried_before.get(truck.name, {})
            results.append(
                TruckResult(
                    picture=shown,
                    missing=self._missing(truck.name),
                    rows_at_restart=story.arrived_at_restart.get(truck.name, 0),
                    telemetry_bytes=ledgers[truck.name],
                    carried_bytes={name: count - before.get(name, 0) for name, count in carried(truck).items()},
                )
            )
        return Result(
            trucks=tuple(results),
            first_sample_s=story.first_sample_s,
            passed_s=story.passed_s,
            configured=story.configured,
            bundle=BUNDLE,
            wanted_versions=EDITIONS,
            activated=story.activated,
            killed_s=story.killed_s,
            back_s=story.back_s,
            troubles=tuple(troubles),
        )

    def _missing(self, truck: str) -> int:
        coverage = self._covered.get(truck)
        epochs = () if coverage is None else coverage.epochs
        return sum(last - first + 1 for epoch in epochs for first, last in epoch.missing)

    async def _ledger(self, client: Client, truck: str) -> int:
        """Return the bytes that the gateway's ledger has for batches of a truck and what answered them."""
        if not self.gateway.running:
            return 0
        with contextlib.suppress(ApiError, UnreachableError, TimeoutError):
            async with asyncio.timeout(_ASK_S):
                page = await client.ledger(truck)
                return sum(each.bytes for each in page.items if each.cause == "batch")
        return 0


def _reason(failure: BaseException) -> str:
    """Return why the story ended, in a line."""
    if isinstance(failure, BaseExceptionGroup):
        return _reason(failure.exceptions[0])
    return str(failure) if isinstance(failure, DigitruckError) else f"{type(failure).__name__}: {failure}"


def _folder(folder: Path | None) -> Path:
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="digitruck-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise LocalError(f"{folder} is not empty: name a folder that is, or none")
    return folder.resolve()
