"""Independent CoAP stacks against the gateway: what is reachable without OSCORE is refused, politely and by the RFCs.

libcoap (C, Debian's libcoap3-bin) as a whole client. Then bare datagrams written here by hand, for what no client would
send of itself (RFC 7252 sections 4 and 5, RFC 7641, RFC 7959).
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.bench.gatewayprocess import GatewayProcess

LIBCOAP = "coap-client-gnutls"
CON, NON, ACK, RST = range(4)
GET, POST, FETCH = 1, 2, 5
UNAUTHORIZED = "4.01"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a gateway that one module shares."""
    with GatewayProcess(tmp_path_factory.mktemp("interop"), []) as running:
        yield running.address


@pytest.fixture
def client() -> str:
    """The command of libcoap's client."""
    if shutil.which(LIBCOAP) is None:
        pytest.skip(f"{LIBCOAP} is not installed: apt-get install libcoap3-bin")
    return LIBCOAP


@pytest.fixture
async def wire(gateway: str) -> AsyncIterator[Wire]:
    """A plain socket to the gateway."""
    opened = Wire(gateway)
    yield opened
    opened.close()


class Wire:
    """Sends bytes to the gateway and returns the datagram that comes back, None if there is none."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect((host, int(port)))

    async def ask(self, data: bytes, *, within_s: float = 2.0) -> bytes | None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._socket, data)
        return await self.next(within_s=within_s)

    async def next(self, *, within_s: float) -> bytes | None:
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.get_running_loop().sock_recv(self._socket, 2048)
        except TimeoutError:
            return None

    def close(self) -> None:
        self._socket.close()


def message(
    kind: int, code: int, mid: int, *options: tuple[int, bytes], token: bytes = b"t", payload: bytes = b""
) -> bytes:
    """Return a CoAP message (RFC 7252 section 3); options ascending, deltas and lengths below 269."""
    data = bytes([1 << 6 | kind << 4 | len(token), code]) + mid.to_bytes(2, "big") + token
    last = 0
    for number, value in options:
        nibbles, extended = 0, b""
        for shift, size in ((4, number - last), (0, len(value))):
            nibbles |= (size if size < 13 else 13) << shift
            extended += b"" if size < 13 else bytes([size - 13])
        data += bytes([nibbles]) + extended + value
        last = number
    return data + (b"\xff" + payload if payload else b"")


def code_of(answer: bytes | None) -> str:
    """Return the code of an answer as the RFC writes it."""
    assert answer is not None, "nothing came back"
    return f"{answer[1] >> 5}.{answer[1] & 31:02}"


async def libcoap(client: str, *arguments: str) -> str:
    """Run libcoap's client for a few seconds at most and return all that it printed."""
    process = await asyncio.create_subprocess_exec(
        client, "-B", "2", "-v", "6", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return output.decode("utf-8", "replace")


@pytest.mark.parametrize("method", ["get", "post", "put", "delete", "fetch", "patch", "ipatch"])
@pytest.mark.parametrize("path", ["u", ".well-known/core", ""])
async def test_libcoap_is_refused_without_a_word(client: str, gateway: str, method: str, path: str) -> None:
    if path != "u" and method not in ("get", "post"):
        return
    output = await libcoap(client, "-m", method, f"coap://{gateway}/{path}")
    assert UNAUTHORIZED in output, output
    assert "</" not in output


async def test_libcoap_finds_nothing_to_observe(client: str, gateway: str) -> None:
    output = await libcoap(client, "-s", "1", "-m", "get", f"coap://{gateway}/d")
    assert output.count(f"c:{UNAUTHORIZED}") == 1, output


async def test_libcoap_cannot_upload_in_blocks(client: str, gateway: str, tmp_path: Path) -> None:
    """No Block1 before authentication: the first block is refused and none is kept."""
    large = tmp_path / "large"
    large.write_bytes(bytes(50_000))
    output = await libcoap(client, "-b", "1024", "-m", "post", "-f", str(large), f"coap://{gateway}/u")
    assert UNAUTHORIZED in output, output
    assert "2.31" not in output


async def test_libcoap_gets_the_same_refusal_confirmable_or_not(client: str, gateway: str) -> None:
    for flags in ((), ("-N",)):
        assert UNAUTHORIZED in await libcoap(client, *flags, "-m", "get", f"coap://{gateway}/d")


# ---- by hand ----


async def test_a_ping_is_answered_by_a_reset(wire: Wire) -> None:
    """RFC 7252 section 4.3: an empty confirmable message is rejected with the same message id."""
    assert await wire.ask(b"\x40\x00\x12\x34") == b"\x70\x00\x12\x34"


async def test_an_empty_message_that_has_more_is_ignored_or_reset(wire: Wire) -> None:
    """RFC 7252 section 4.2: a confirmable message with a format error is rejected; silence is allowed too."""
    answer = await wire.ask(b"\x41\x00\x12\x35\x07", within_s=0.5)
    assert answer in (None, b"\x70\x00\x12\x35")


async def test_a_confirmable_request_has_its_refusal_in_the_acknowledgement(wire: Wire) -> None:
    answer = await wire.ask(message(CON, GET, 0x0101, (11, b"d"), token=b"abcd"))
    assert answer == bytes([1 << 6 | ACK << 4 | 4, 0x81]) + b"\x01\x01abcd"


async def test_a_non_confirmable_request_has_a_non_confirmable_refusal(wire: Wire) -> None:
    answer = await wire.ask(message(NON, POST, 0x0102, (11, b"u"), token=b"abcd"))
    assert answer is not None
    assert (answer[0], code_of(answer), answer[4:]) == (1 << 6 | NON << 4 | 4, UNAUTHORIZED, b"abcd")


async def test_a_repeated_confirmable_request_has_the_same_answer(wire: Wire) -> None:
    """RFC 7252 section 4.2: each duplicate is acknowledged with the same acknowledgement."""
    request = message(CON, GET, 0x0103, (11, b"d"))
    assert await wire.ask(request) == await wire.ask(request) is not None


async def test_observe_is_refused_and_nothing_follows(wire: Wire) -> None:
    """RFC 7641: a request that cannot be observed is answered once, without an Observe option."""
    answer = await wire.ask(message(NON, GET, 0x0104, (6, b""), (11, b"d")))
    assert code_of(answer) == UNAUTHORIZED
    assert answer is not None
    assert len(answer) == 5
    assert await wire.next(within_s=0.3) is None


@pytest.mark.parametrize("option", [1, 3, 5, 7, 27, 35, 39, 65])
async def test_a_critical_option_is_never_obeyed(wire: Wire, option: int) -> None:
    """RFC 7252 section 5.4.1: 4.02 for one that is not known; nobody learns before authentication which those are."""
    options = sorted([(option, b"" if option == 5 else b"x"), (11, b"u")])
    answer = await wire.ask(message(CON, POST, 0x0200 + option, *options))
    assert code_of(answer) in ("4.01", "4.02", "5.05")
    assert answer is not None
    assert b"\xff" not in answer


@pytest.mark.parametrize("length", [9, 10, 15])
async def test_token_lengths_beyond_eight_are_a_format_error(wire: Wire, length: int) -> None:
    """RFC 7252 section 3: lengths 9 to 15 are reserved; the message is ignored or reset, never answered."""
    data = bytes([1 << 6 | CON << 4 | length, GET]) + b"\x03\x00" + bytes(length)
    answer = await wire.ask(data, within_s=0.3)
    assert answer is None or answer[0] >> 4 & 3 == RST


@pytest.mark.parametrize("version", [0, 2, 3])
async def test_unknown_versions_are_ignored_in_silence(wire: Wire, version: int) -> None:
    """RFC 7252 section 3: messages with unknown version numbers must be silently ignored."""
    assert await wire.ask(bytes([version << 6, GET]) + b"\x03\x01", within_s=0.3) is None


@pytest.mark.parametrize("code", [0x41, 0x45, 0x84, 0xA0])
async def test_an_answer_to_no_request_makes_no_answer(wire: Wire, code: int) -> None:
    """RFC 7252 section 4.2: a response out of place is rejected, at most with a reset."""
    answer = await wire.ask(message(NON, code, 0x0400 + code), within_s=0.3)
    assert answer is None or answer[0] >> 4 & 3 == RST


async def test_an_unknown_kid_and_a_broken_oscore_option_look_the_same(wire: Wire) -> None:
    """RFC 8613 section 8.2 lets a server answer 4.01 alike, so that nobody can ask which contexts exist."""
    answers = []
    for at, option in enumerate((b"\x09\x00abc", b"\x09\x01zzz", b"\xff\xff", b"", b"\x1f\x00")):
        answer = await wire.ask(message(NON, POST, 0x0500 + at, (9, option), payload=bytes(30)))
        answers.append((code_of(answer), (answer or b"")[4:]))
    assert set(answers) == {(UNAUTHORIZED, b"t")}


async def test_edhoc_answers_no_stranger_with_more_than_three_times_its_bytes(wire: Wire) -> None:
    """The one thing that is answered with more than a code; a message_1 that is none is refused like the rest."""
    assert code_of(await wire.ask(message(NON, POST, 0x0600, (11, b"x"), payload=b"\xf5" + bytes(37)))) == UNAUTHORIZED
