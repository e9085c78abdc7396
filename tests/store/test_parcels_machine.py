"""The parcel queue against a gateway that remembers, in any order of events: nothing accepted is ever lost."""

import contextlib
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protocol import cose, messages
from protocol.errors import QueueFullError
from protocol.messages import Ack, Tombstone, unseal
from protocol.numbers import ParcelKind, Precedence, Refusal
from store import eviction
from store.database import open_database
from store.parcels import ParcelQueue, ParcelState
from store.schema import STATE


class QueueMachine(RuleBasedStateMachine):
    """A truck's queue against a gateway that remembers, with loss, repeats, crashes and a share that runs full."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "state.db"
        self.key = cose.SigningKey(bytes(32))
        self.accepted: dict[int, bytes] = {}
        self.gateway: dict[int, messages.Parcel] = {}
        self.refused: set[int] = set()
        self.last_ack: Ack | None = None
        self.number = 0
        self.open()

    def open(self) -> None:
        self.database = open_database(self.path, schema=STATE, share_bytes=1 << 20)
        self.queue = ParcelQueue(self.database, "ke-arrow")

    def seal(self, parcel: messages.Parcel) -> bytes:
        return messages.seal(self.key, parcel, "ke-arrow")

    @rule(precedence=st.sampled_from(list(Precedence)), size=st.integers(0, 16_000), count=st.integers(1, 12))
    def add(self, precedence: Precedence, size: int, count: int) -> None:
        with self.database.atomic(), contextlib.suppress(QueueFullError):
            for _ in range(count):
                self.number += 1
                payload = b"%08d" % self.number + bytes(size)
                parcel = self.queue.add(ParcelKind.BATCH, precedence, payload, self.seal, self.number)
                assert parcel.sequence not in self.accepted
                self.accepted[parcel.sequence] = payload

    @rule(limit=st.integers(1, 64), lost=st.booleans(), answer_lost=st.booleans(), refuse=st.booleans())
    def send(self, limit: int, lost: bool, answer_lost: bool, refuse: bool) -> None:
        window = [each.sequence for each in self.queue.load_window(limit)]
        sent = self.queue.mark_sent(self.queue.epoch, window, 1)
        assert list(sent) == window
        sealed = {each.sequence: each.sealed for each in self.queue.load_window(limit)}
        if lost:
            self.queue.mark_unanswered(self.queue.epoch, sent)
            return
        for sequence in sent:
            parcel = unseal(sealed[sequence])
            if refuse and sequence % 7 == 0 and sequence not in self.gateway:
                self.refused.add(sequence)
            elif sequence not in self.refused:
                held = self.gateway.setdefault(sequence, parcel)
                assert held == parcel
        self.last_ack = self.ack()
        if answer_lost:
            self.queue.mark_unanswered(self.queue.epoch, sent)
        else:
            self.queue.mark_delivered(self.last_ack, self.queue.epoch, 2, sent=sent)

    def ack(self) -> Ack:
        settled = set(self.gateway) | self.refused
        for parcel in self.gateway.values():
            if parcel.kind is ParcelKind.TOMBSTONE:
                for first, last in Tombstone.decode(parcel.payload).ranges:
                    settled |= set(range(first, last + 1))
        cumulative = 0
        while cumulative + 1 in settled:
            cumulative += 1
        ranges = eviction.as_ranges(tuple(each for each in settled if each > cumulative))[:32]
        refused = tuple((each, Refusal.MALFORMED) for each in sorted(self.refused))[-64:]
        return Ack(cumulative=cumulative, ranges=ranges, refused=refused)

    @precondition(lambda self: self.last_ack is not None)
    @rule()
    def old_ack_again(self) -> None:
        assert self.last_ack is not None
        self.queue.mark_delivered(self.last_ack, self.queue.epoch, 3)

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        epoch = self.queue.epoch
        if clean:
            self.database.close()
        else:
            self.database.sql.begin()
            self.database.update("parcels", "1 = 1", {}, attempts=4)
            self.database.crash()
        self.open()
        assert self.queue.epoch == epoch

    @rule()
    def prune(self) -> None:
        self.queue.prune(kept_s=-1)

    @invariant()
    def nothing_accepted_is_lost(self) -> None:
        rows = self.database.rows("SELECT sequence, state, sealed FROM parcels")
        waiting = {
            sequence for sequence, state, _sealed in rows if state in (ParcelState.QUEUED, ParcelState.QUARANTINED)
        }
        graves = [
            *(unseal(sealed) for _sequence, state, sealed in rows if state == ParcelState.QUEUED),
            *self.gateway.values(),
        ]
        named = {
            number
            for parcel in graves
            if parcel.kind is ParcelKind.TOMBSTONE
            for first, last in Tombstone.decode(parcel.payload).ranges
            for number in range(first, last + 1)
        }
        assert set(self.accepted) <= waiting | set(self.gateway) | named
        for sequence, parcel in self.gateway.items():
            if parcel.kind is ParcelKind.BATCH:
                assert parcel.payload == self.accepted[sequence]

    @invariant()
    def the_share_holds(self) -> None:
        assert self.database.used_bytes() <= self.database.capacity_bytes()

    def teardown(self) -> None:
        assert self.database.damage() == ()
        self.database.crash()
        self.folder.cleanup()


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(
    max_examples=8, stateful_step_count=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
