"""The demo's gateway: a data folder made as `digitruck-gateway init` makes it, and the process that serves it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.daemon import initialise
from gateway.demo.children import Child, OnLog, start_child
from protocol.errors import LocalError

_HOST = "127.0.0.1"
_READY_S = 60.0

_GATEWAY_TOML = """\
[coap]
listen = "{coap}"
public = ["{coap}"]

[http]
listen = "{http}"
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """The two ports of the gateway on 127.0.0.1; the same before and after a restart."""

    coap: int
    http: int


def choose_ports(*, coap: int | None = None, http: int | None = None, usual_http: int | None = None) -> Ports:
    """Return the ports asked for, else free ones (`usual_http` if it is); raise `LocalError` for one that is taken."""
    usual = (usual_http,) if usual_http is not None else ()
    return Ports(_port(socket.SOCK_DGRAM, coap, ()), _port(socket.SOCK_STREAM, http, usual))


@dataclass(frozen=True, slots=True)
class Site:
    """Where a gateway runs: its addresses for trucks and for people, and what puts its process there."""

    coap_host: str = _HOST
    http_host: str = _HOST
    enter: tuple[str, ...] = ()


class DemoGateway:
    """A gateway that can be started, killed and started again."""

    def __init__(
        self, folder: Path, ports: Ports, environment: Mapping[str, str], on_log: OnLog, *, site: Site | None = None
    ) -> None:
        self.folder = folder
        self.ports = ports
        self.token = ""
        self._site = site or Site()
        self._environment = environment
        self._on_log = on_log
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """The HTTP API's address."""
        return f"http://{self._site.http_host}:{self.ports.http}"

    @property
    def coap(self) -> tuple[str, int]:
        """The CoAP address."""
        return self._site.coap_host, self.ports.coap

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.running

    async def make(self) -> None:
        """Make keys, database, configuration and the first token."""
        coap, http = f"{self._site.coap_host}:{self.ports.coap}", f"{self._site.http_host}:{self.ports.http}"
        path, self.token = await initialise(self.folder, coap=coap, http=http)
        path.write_text(_GATEWAY_TOML.format(coap=coap, http=http))

    async def start(self) -> None:
        """Start the process and wait until it answers."""
        self._child = await start_child(
            "gateway",
            "gateway",
            "serve",
            "--config",
            str(self.folder / "gateway.toml"),
            environment=self._environment,
            log=self.folder / "gateway.log",
            on_log=self._on_log,
            enter=self._site.enter,
        )
        await self._child.first_words(_READY_S)

    async def kill(self) -> None:
        """Kill it with SIGKILL: nothing is flushed, nobody is told."""
        if self._child is not None:
            await self._child.kill()

    async def end(self) -> None:
        """Stop it in order."""
        if self._child is not None:
            await self._child.end()


def _port(kind: socket.SocketKind, wanted: int | None, preferred: tuple[int, ...]) -> int:
    for port in (wanted,) if wanted else (*preferred, 0):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                # As the server itself: a port whose old connections linger is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise LocalError(f"port {wanted} is taken: name another, or none")
