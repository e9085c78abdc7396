"""SPEC.md and the code say the same: states, limits, paths, sizes on the wire."""

import re
from pathlib import Path

import pytest
from aiocoap import Message
from aiocoap.numbers import codes
from aiocoap.numbers.types import NON

import protocol
from protocol import edhoc, numbers
from protocol.forwarding import TRANSITIONS
from protocol.oscore import LinkContext, Secrets

SPEC = (Path(protocol.__path__[0]) / "SPEC.md").read_text()
IP_AND_UDP_BYTES = 28


def table(heading: str) -> list[list[str]]:
    """Return the rows of the first table under a heading, without its head."""
    after = SPEC[SPEC.index(f"# {heading}") :]
    rows = []
    for line in after.splitlines()[1:]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]


def test_forwarding_table_is_the_codes() -> None:
    rows = [tuple(row) for row in table("Forwarding")]
    assert len(set(rows)) == len(rows)
    assert set(rows) == {(state.name, what.name, after.name) for (state, what), after in TRANSITIONS.items()}


def test_limits_are_the_codes_and_none_is_missing() -> None:
    rows = {name: int(value) for name, value, _ in table("12. Limits")}
    assert rows == {name: getattr(numbers, name) for name in rows}
    known = {
        name
        for name, value in vars(numbers).items()
        if name.isupper() and isinstance(value, int) and not name.startswith(("COSE_", "TAG_"))
    }
    assert known == set(rows)


def test_paths_context_strings_and_kinds_are_named() -> None:
    paths = {row[0].split(" ")[1].partition("?")[0] for row in table("Resources")}
    one_letter = {value for name, value in vars(numbers).items() if name.startswith("PATH_") and isinstance(value, str)}
    assert paths == {f"/{path}" for path in one_letter} | {"/" + "/".join(numbers.PATH_EDHOC)}
    for name, value in vars(numbers).items():
        if name.startswith("CONTEXT_"):
            assert f'"{value}"' in SPEC
    assert [row[0] for row in table("7. Documents")] == [f"{k.value} {k.name.lower()}" for k in numbers.DocumentKind]
    assert [row[0] for row in table("5. Parcels")] == [f"{k.value} {k.name}" for k in numbers.ParcelKind]


def carried(message: Message) -> bytes:
    """Return the datagram that carries a message."""
    message.token, message.mid, message.mtype = b"t", 1, NON
    return bytes(message.encode())


def on_the_wire(message: Message) -> int:
    """Return the length of the IPv4 packet that carries a message."""
    return IP_AND_UDP_BYTES + len(carried(message))


def contexts() -> tuple[LinkContext, LinkContext]:
    truck, gateway = b"kid", b"\x00"
    return (
        LinkContext(
            Secrets(b"m" * 16, b"s" * 8, truck, gateway), first_sequence=300, reserve=lambda _: None, echo=None
        ),
        LinkContext(Secrets(b"m" * 16, b"s" * 8, gateway, truck), first_sequence=0, reserve=lambda _: None, echo=None),
    )


@pytest.mark.parametrize(
    ("code", "path"), [(codes.POST, "u"), (codes.FETCH, "p"), (codes.FETCH, "k"), (codes.POST, "e")]
)
def test_bytes_around_a_request_and_its_answer(code: codes.Code, path: str) -> None:
    row = next(row for row in table("Resources") if row[0] == f"{code.name} /{path}")
    truck, gateway = contexts()
    request = Message(code=code, uri_path=[path], payload=bytes(100))
    outer, truck_id = truck.protect(request, kid_context=False)
    assert on_the_wire(outer) - 100 == int(row[4])
    inner, gateway_id = gateway.unprotect(Message.decode(carried(outer)))
    assert inner.payload == bytes(100)
    answer, _ = gateway.protect(Message(code=codes.CHANGED, payload=bytes(100)), gateway_id)
    assert on_the_wire(answer) - 100 == int(row[5])
    assert truck.unprotect(Message.decode(carried(answer)), truck_id)[0].payload == bytes(100)


def test_bytes_around_a_get() -> None:
    row = next(row for row in table("Resources") if row[0].startswith("GET"))
    sizes = []
    for query in ("A" * 43, "desired"):
        truck, _ = contexts()
        request = Message(code=codes.GET, uri_path=["d"], uri_query=[query])
        sizes.append(on_the_wire(truck.protect(request, kid_context=False)[0]))
    assert row[4] == f"{sizes[0]}, or {sizes[1]} for `desired`"


@pytest.mark.parametrize("path", [("x",), numbers.PATH_EDHOC])
def test_bytes_around_the_handshake(path: tuple[str, ...]) -> None:
    row = next(row for row in table("Resources") if row[0] == f"POST /{'/'.join(path)}")
    assert on_the_wire(Message(code=codes.POST, uri_path=list(path), payload=bytes(38))) - 38 == int(row[4])
    assert on_the_wire(Message(code=codes.CHANGED, payload=bytes(48))) - 48 == int(row[5])


@pytest.mark.parametrize("link", ["a", "sat", "a" * 20, "a" * 21, "a" * 22, "a" * 23, "a" * 31])
def test_bytes_of_the_handshake(link: str) -> None:
    sizes = {row[0]: row[1] for row in table("3. Sessions")}
    truck, gateway = edhoc.generate_key(), edhoc.generate_key()
    initiator = edhoc.Initiator(truck, gateway.public, link=link, joining=False)
    message_1 = initiator.message_1()
    message_2 = edhoc.Responder(gateway).answer(message_1, b"kid")
    message_3, _ = initiator.finish(message_2)
    assert sizes["message_1"].startswith(f"{len(message_1)} ")
    assert sizes["message_2"] == str(len(message_2))
    assert len(message_3) == 29 + len(link) + (len(link) >= 24)


def test_the_cddl_is_what_the_spec_calls_it() -> None:
    grammar = (Path(protocol.__path__[0]) / "fleet.cddl").read_text()
    known = set(re.findall(r"^(\w+)(?:<\w+>)? =", grammar, flags=re.MULTILINE))
    named = set(re.findall(r"`([A-Z][A-Za-z0-9]+)`", SPEC))
    assert named <= known
