"""MQTT over TLS 1.3: what a publish of one row as JSON costs, with a real mosquitto, counted by the kernel.

A subscriber-less broker and a client of our own (25 lines of MQTT 3.1.1 over Python's ssl) in a network namespace where
nothing else uses the loopback interface: its counters are IP packets, TCP's acknowledgements included. The client waits
after each acknowledged publish, as a truck that sends a row a minute does, so that nothing is merged. Needs
`mosquitto`, and `unshare` (root, or user namespaces).
"""

from __future__ import annotations

import datetime
import json
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge.recording import Recording
from tests.bench.traces import load_trace, row_json
from tests.bench.wire import _bring_loopback_up, loopback

NAME = "mqtt"
MONTH_ROWS = 43_200
PUBLISHES = 60
_WAIT_S = 0.08  # longer than TCP delays an acknowledgement
_TOPIC = b"fleet/ke-arrow/telemetry"
_UNSHARE = ("unshare", "--map-root-user", "--net")
Figures = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class MqttFigures:
    """Kernel bytes of connecting (TCP, TLS and MQTT), and of all publishes; `payload_bytes` of JSON were in them."""

    connect_bytes: int
    publish_bytes: int
    payload_bytes: int
    publishes: int


def run(args: list[str]) -> list[Figures]:
    """Return (figure, measured, anchor, limit); `args` may name a trace."""
    return figures(load_trace(Path(args[0]) if args else None))


def figures(recording: Recording) -> list[Figures]:
    """Measure rows of a recording, or say why that cannot be done here."""
    missing = next((each for each in ("mosquitto", "unshare") if _found(each) is None), None)
    if missing is None and subprocess.run([*_UNSHARE, "true"], check=False).returncode:
        missing = "a network namespace (root, or unprivileged user namespaces)"
    if missing is not None:
        return [("MQTT + TLS 1.3: not measured", f"{missing} is needed", "19,800 kB a month", "")]
    step = max(1, len(recording.rows) // PUBLISHES)
    payloads = [row_json(recording, row).decode() for row in recording.rows[::step][:PUBLISHES]]
    with tempfile.TemporaryDirectory(prefix="digitruck-mqtt-") as folder:
        (Path(folder) / "payloads.json").write_text(json.dumps(payloads))
        inside = [*_UNSHARE, sys.executable, "-m", "tests.bench.mqtt", folder]
        output = subprocess.run(inside, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = MqttFigures(**json.loads(output.splitlines()[-1]))
    each = found.publish_bytes / found.publishes
    return [
        ("MQTT + TLS 1.3 + JSON, QoS 1: connecting, kernel bytes", f"{found.connect_bytes}", "TLS 1.3 alone 4,019", ""),
        (
            "MQTT + TLS 1.3 + JSON, QoS 1: bytes a publish (payload)",
            f"{each:.1f} ({found.payload_bytes / found.publishes:.0f})",
            "455.4 (truck-a: 223)",
            "",
        ),
        (
            "MQTT + TLS 1.3 + JSON: wire bytes a truck-month, kernel",
            f"{(each * MONTH_ROWS + found.connect_bytes) / 1000:.0f} kB",
            "19,800 kB",
            "",
        ),
    ]


def measure(folder: Path, payloads: Sequence[bytes]) -> MqttFigures:
    """Publish to a broker of our own on loopback; nothing else may use it."""
    certificate = _certify(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\ntls_version tlsv1.3\npersistence false\nuser root\n"
        f"certfile {certificate}\nkeyfile {folder / 'key.pem'}\n"
    )
    log = (folder / "log").open("wb")
    broker = subprocess.Popen([str(_found("mosquitto")), "-c", str(folder / "mosquitto.conf")], stdout=log, stderr=log)
    try:
        _wait_for(port, broker, folder)
        time.sleep(0.3)
        before = loopback()[0]
        client = _Client(port, certificate)
        time.sleep(0.3)
        connected = loopback()[0]
        for payload in payloads:
            client.publish(payload)
            time.sleep(_WAIT_S)
        done = loopback()[0]
        client.close()
        return MqttFigures(connected - before, done - connected, sum(map(len, payloads)), len(payloads))
    finally:
        broker.kill()
        broker.wait()
        log.close()


class _Client:
    """Connects, and publishes at QoS 1 one message at a time (MQTT 3.1.1)."""

    def __init__(self, port: int, certificate: Path) -> None:
        context = ssl.create_default_context(cafile=str(certificate))
        raw = socket.create_connection(("127.0.0.1", port), timeout=30)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(raw, server_hostname="localhost")
        self._number = 0
        # Section 3.1: protocol name and level, clean session, a keep-alive of two hours, the client's name.
        self._send(0x10, b"\x00\x04MQTT\x04\x02\x1c\x20" + _text(b"ke-arrow"))
        assert self._socket.recv(16)[:1] == b"\x20", "CONNACK"

    def publish(self, payload: bytes) -> None:
        self._number = self._number % 0xFFFF + 1
        self._send(0x32, _text(_TOPIC) + self._number.to_bytes(2, "big") + payload)
        assert self._socket.recv(16)[:1] == b"\x40", "PUBACK"

    def close(self) -> None:
        self._socket.close()

    def _send(self, kind: int, body: bytes) -> None:
        length = bytearray()
        left = len(body)
        while True:
            length.append(left & 0x7F | (0x80 if left > 0x7F else 0))
            left >>= 7
            if not left:
                break
        self._socket.sendall(bytes([kind]) + length + body)


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _certify(folder: Path) -> Path:
    """Make a key and a certificate of itself; return the certificate's path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    return folder / "cert.pem"


def _wait_for(port: int, broker: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and broker.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("mqtt: mosquitto did not start: " + (folder / "log").read_text(errors="replace")[-500:])


def _found(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def main() -> None:
    """Run inside the namespace; the folder holds the payloads."""
    _bring_loopback_up()
    folder = Path(sys.argv[1])
    payloads = [each.encode() for each in json.loads((folder / "payloads.json").read_text())]
    found = measure(folder, payloads)
    print(
        json.dumps(
            {
                "connect_bytes": found.connect_bytes,
                "publish_bytes": found.publish_bytes,
                "payload_bytes": found.payload_bytes,
                "publishes": found.publishes,
            }
        )
    )


if __name__ == "__main__":
    main()
