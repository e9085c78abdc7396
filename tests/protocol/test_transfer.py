"""The transfer machine: pieces in any order, late, twice, of wrong length, over links that fail."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol.errors import MalformedError
from protocol.numbers import PIECE_BYTES
from protocol.transfer import Ask, Transfer, piece_count

DIGEST = b"d" * 32


def transfer_of(size: int, missing: list[int] | None = None) -> Transfer:
    return Transfer(DIGEST, size, range(piece_count(size)) if missing is None else missing)


def ask(transfer: Transfer, now: float = 0.0, link: str = "sat") -> Ask:
    asked = transfer.poll_transmit(link, now)
    assert asked is not None
    return asked


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 1), (1_023, 1), (1_024, 1), (1_025, 2), (10_240, 10)])
def test_piece_count(size: int, count: int) -> None:
    assert piece_count(size) == count


def test_an_empty_object_is_complete_at_once() -> None:
    transfer = transfer_of(0)
    assert transfer.complete
    assert transfer.poll_transmit("sat", 0.0) is None
    assert transfer.poll_timeout() is None


def test_pieces_are_asked_for_in_order_and_the_last_is_short() -> None:
    transfer = transfer_of(2 * PIECE_BYTES + 10)
    asks = [ask(transfer) for _ in range(3)]
    assert [each.request.first for each in asks] == [0, 1, 2]
    assert {(each.request.digest, each.request.count) for each in asks} == {(DIGEST, 1)}
    assert [transfer.expected_bytes(index) for index in range(3)] == [PIECE_BYTES, PIECE_BYTES, 10]
    for each in reversed(asks):
        index = each.request.first
        assert transfer.handle_piece("sat", each, bytes(transfer.expected_bytes(index)), 0.5) == index
    assert transfer.complete


def test_only_what_is_missing_is_asked_for_and_each_once() -> None:
    transfer = transfer_of(10 * PIECE_BYTES, [7, 3, 7])
    assert transfer.pieces_left == 2
    assert [ask(transfer).request.first for _ in range(2)] == [7, 3]
    assert transfer.poll_transmit("sat", 0.0) is None


def test_nothing_is_asked_for_again_while_it_may_be_in_flight() -> None:
    transfer = transfer_of(100 * PIECE_BYTES)
    asked = []
    for link in ("sat", "lte"):
        while (each := transfer.poll_transmit(link, 0.0)) is not None:
            asked.append(each.request.first)
    assert asked == list(range(len(asked)))
    assert 4 <= len(asked) < 100


def test_outstanding_requests_are_bounded_over_all_links() -> None:
    transfer = transfer_of(10_000 * PIECE_BYTES)
    count = 0
    for n in range(300):
        while transfer.poll_transmit(f"link{n}", 0.0) is not None:
            count += 1
    assert count == 1_024


def test_a_lost_request_goes_first_again() -> None:
    transfer = transfer_of(100 * PIECE_BYTES)
    first = ask(transfer)
    transfer.handle_loss("sat", first.number)
    transfer.handle_loss("sat", first.number)
    again = ask(transfer)
    assert (again.request.first, again.number) == (0, first.number + 1)


def test_a_late_piece_is_taken_and_not_asked_for_again() -> None:
    transfer = transfer_of(2 * PIECE_BYTES)
    first = ask(transfer)
    until = transfer.poll_timeout()
    assert until is not None
    assert transfer.handle_timeout(until) == 1
    assert transfer.handle_piece("sat", first, bytes(PIECE_BYTES), until) == 0
    assert ask(transfer, until).request.first == 1
    assert transfer.poll_transmit("sat", until) is None


def test_a_piece_that_comes_twice_counts_once() -> None:
    transfer = transfer_of(2 * PIECE_BYTES)
    first = ask(transfer)
    assert transfer.handle_piece("sat", first, bytes(PIECE_BYTES), 0.5) == 0
    assert transfer.handle_piece("sat", first, bytes(PIECE_BYTES), 0.6) is None
    assert transfer.handle_piece("sat", first, b"", 0.6) is None
    assert transfer.pieces_left == 1


@pytest.mark.parametrize("length", [0, 1, PIECE_BYTES - 1, PIECE_BYTES + 1, 5 * PIECE_BYTES])
def test_a_piece_of_wrong_length_is_refused_and_asked_for_once_more(length: int) -> None:
    transfer = transfer_of(3 * PIECE_BYTES)
    first = ask(transfer)
    for _ in range(2):
        with pytest.raises(MalformedError, match=f"piece 0 has {length} bytes"):
            transfer.handle_piece("sat", first, bytes(length), 0.5)
    assert [ask(transfer, 0.5).request.first for _ in range(3)] == [1, 2, 0]
    assert transfer.poll_transmit("sat", 0.5) is None
    assert not transfer.complete


class Transferring(RuleBasedStateMachine):
    """A truck that fetches, a gateway, and two links that lose, delay, repeat and fail."""

    LINKS = ("sat", "lte")

    @initialize(size=st.integers(1, 20 * PIECE_BYTES))
    def start(self, size: int) -> None:
        self.now = 0.0
        self.size = size
        self.held: set[int] = set()
        self.under_way: list[tuple[str, Ask]] = []
        self.transfer = Transfer(DIGEST, size, range(piece_count(size)))

    @rule(link=st.sampled_from(LINKS))
    def asks(self, link: str) -> None:
        each = self.transfer.poll_transmit(link, self.now)
        if each is not None:
            assert each.request.first not in self.held, "a piece that is held is paid for again"
            self.under_way.append((link, each))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), keep=st.booleans(), wrong=st.integers(0, 5))
    def answered(self, data: st.DataObject, keep: bool, wrong: int) -> None:
        at = data.draw(st.integers(0, len(self.under_way) - 1))
        link, each = self.under_way[at] if keep else self.under_way.pop(at)
        index = each.request.first
        length = self.transfer.expected_bytes(index) + (1 if wrong == 0 else 0)
        try:
            got = self.transfer.handle_piece(link, each, bytes(length), self.now)
        except MalformedError:
            assert wrong == 0
            return
        assert (got is None) == (index in self.held)
        self.held.add(index)

    @rule(seconds=st.sampled_from([0.01, 0.5, 5.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.transfer.handle_timeout(self.now)
        until = self.transfer.poll_timeout()
        assert until is None or until > self.now

    @rule(link=st.sampled_from(LINKS))
    def link_fails(self, link: str) -> None:
        for name, each in self.under_way:
            if name == link:
                self.transfer.handle_loss(link, each.number)

    @rule()
    def truck_restarts(self) -> None:
        self.under_way.clear()
        missing = [index for index in range(piece_count(self.size)) if index not in self.held]
        self.transfer = Transfer(DIGEST, self.size, missing)

    @invariant()
    def what_is_left_is_what_is_not_held(self) -> None:
        if not hasattr(self, "transfer"):
            return
        assert self.transfer.pieces_left == piece_count(self.size) - len(self.held)
        assert self.transfer.complete == (self.transfer.pieces_left == 0)

    def teardown(self) -> None:
        """Once the links heal, it ends."""
        if not hasattr(self, "transfer"):
            return
        for _ in range(100):
            self.now += 100.0
            self.transfer.handle_timeout(self.now)
            while (each := self.transfer.poll_transmit("sat", self.now)) is not None:
                index = each.request.first
                self.transfer.handle_piece("sat", each, bytes(self.transfer.expected_bytes(index)), self.now)
                self.held.add(index)
        assert self.transfer.complete
        assert self.held == set(range(piece_count(self.size)))


Transferring.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestTransferring = Transferring.TestCase
