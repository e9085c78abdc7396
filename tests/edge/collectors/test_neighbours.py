from __future__ import annotations

import struct

import pytest

from edge.collectors.neighbours import NeighbourState, read_neighbours, take_answer


def message(kind: int, body: bytes) -> bytes:
    data = struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body
    return data + bytes(-len(data) % 4)


def entry(state: int, *attributes: tuple[int, bytes]) -> bytes:
    data = struct.pack("=BBHiHBB", 2, 0, 0, 1, state, 0, 1)
    for kind, value in attributes:
        data += struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    return message(28, data)


def test_an_answer_of_the_kernel_is_read():
    found: dict[str, NeighbourState] = {}
    mac, here = (2, b"\1\2\3\4\5\6"), (1, bytes([10, 0, 0, 7]))
    assert take_answer(entry(2, mac, here) + entry(4, (1, bytes(15) + b"\1")) + entry(32, mac), found)
    assert found == {"10.0.0.7": NeighbourState.REACHABLE, "::1": NeighbourState.STALE}
    # The same address on two networks: on either is enough.
    assert take_answer(entry(32, here), found)
    assert found["10.0.0.7"] == NeighbourState.REACHABLE | NeighbourState.FAILED
    assert not take_answer(message(3, bytes(4)), found)


@pytest.mark.parametrize(
    "answer", [message(2, bytes(4)), entry(2)[:-4], struct.pack("=IHHII", 3, 28, 2, 1, 0), b"\xff" * 64]
)
def test_an_answer_that_is_refused_or_cut_off_is_an_error(answer: bytes):
    with pytest.raises(OSError, match="kernel"):
        take_answer(answer, {})


def test_attributes_that_do_not_fit_are_passed_over():
    found: dict[str, NeighbourState] = {}
    assert take_answer(message(28, b"\2\0\0"), found)
    assert take_answer(entry(2, (1, b"\1\2\3")), found)
    assert take_answer(message(28, entry(2)[16:] + b"\0\0\1\0"), found)
    assert found == {}


def test_this_kernel_answers():
    assert all(isinstance(state, NeighbourState) for state in read_neighbours().values())
