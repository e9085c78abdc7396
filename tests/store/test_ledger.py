"""The ledger: committed before it is spent, never over a cap, and no crash, loss or old copy makes it forget."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.budget import Cap, Spent
from protocol.errors import BudgetExceededError
from protocol.numbers import Precedence
from store import incidents
from store.database import open_reader
from store.errors import StoreError
from store.ledger import RECEIVED, RESERVATIONS_MAX, SENT, Ledger
from store.links import Links, open_links

FLASH, NORMAL, BULK = Precedence.FLASH, Precedence.NORMAL, Precedence.BULK
NOVEMBER, DECEMBER, JANUARY = 202611, 202612, 202701
CAPS = {"sat": Cap(100_000, 10_000), "lte": Cap(None)}


@pytest.fixture
def links(tmp_path: Path):
    """Open links.db again and again; each opening lets go of the one before, as a crash does."""
    opened: list[Links] = []

    def open_again(caps=CAPS, **options) -> Links:
        if opened:
            opened[-1].database.crash()
        opened.append(open_links(tmp_path / "links.db", caps, **options))
        return opened[-1]

    yield open_again
    opened[-1].database.crash()


def spend(ledger: Ledger, byte_count: int, link="sat", precedence=NORMAL, cause="batch", period=NOVEMBER) -> None:
    reservation = ledger.reserve(link, precedence, cause, byte_count, period=period)
    ledger.settle(reservation, sent_bytes=byte_count, received_bytes=0)


def spend_all(ledger: Ledger, precedence=NORMAL, step=1_000, period=NOVEMBER) -> int:
    total = 0
    while step:
        try:
            spend(ledger, step, precedence=precedence, period=period)
            total += step
        except BudgetExceededError:
            step //= 10
    return total


def names(links: Links) -> list[str]:
    return [each.name for each in incidents.unreported(links.database, 100)]


def test_a_promise_is_in_the_database_before_it_is_given(links, tmp_path: Path) -> None:
    ledger = links(slice_bytes=4_000).ledger
    ledger.reserve("sat", NORMAL, "batch", 700, period=NOVEMBER)
    reader = open_reader(tmp_path / "links.db")
    assert reader.execute("SELECT held_other FROM ledger_accounts WHERE link = 'sat' AND period").fetchone() == (4_000,)
    reader.close()
    assert ledger.spent("sat") == 4_000


def test_what_was_carried_is_told_apart_from_what_is_promised(links) -> None:
    ledger = links({"sat": Cap(100_000, 0)}, slice_bytes=10_000).ledger
    spend(ledger, 300)
    ledger.reserve("sat", NORMAL, "batch", 700, period=NOVEMBER)
    assert (ledger.booked("sat"), ledger.spent("sat"), ledger.cap_bytes("sat")) == (300, 10_000, 100_000)
    ledger.flush()
    assert ledger.booked("sat") == 300


def test_a_slice_is_one_commit_for_many_datagrams(links) -> None:
    opened = links(slice_bytes=10_000)
    spend(opened.ledger, 100)
    before = opened.database.value("SELECT total_changes()")
    for _ in range(99):
        spend(opened.ledger, 100)
    assert opened.database.value("SELECT total_changes()") == before
    spend(opened.ledger, 100)
    assert opened.database.value("SELECT total_changes()") > before


def test_what_was_spent_is_told_by_link_precedence_cause_and_direction(links) -> None:
    ledger = links().ledger
    reservation = ledger.reserve("sat", NORMAL, "batch", 1_000, period=NOVEMBER)
    ledger.settle(reservation, sent_bytes=600, received_bytes=90, sent_datagrams=2)
    spend(ledger, 50, link="lte", precedence=FLASH, cause="event")
    ledger.charge("sat", BULK, "refused", RECEIVED, 40, period=NOVEMBER)
    spend(ledger, 10)
    found = {
        (each.link, each.precedence, each.cause, each.direction): (each.bytes_ip, each.datagrams)
        for each in ledger.totals(NOVEMBER)
    }
    assert found == {
        ("sat", NORMAL, "batch", SENT): (610, 3),
        ("sat", NORMAL, "batch", RECEIVED): (90, 1),
        ("lte", FLASH, "event", SENT): (50, 1),
        ("sat", BULK, "refused", RECEIVED): (40, 1),
    }
    assert ledger.totals(DECEMBER) == ()


def test_others_stop_at_the_reserve_and_flash_may_use_all_of_it(links) -> None:
    ledger = links().ledger
    assert spend_all(ledger, NORMAL) == 90_000
    assert ledger.left("sat", NORMAL, period=NOVEMBER) == 0
    assert spend_all(ledger, FLASH) == 10_000
    assert ledger.left("sat", FLASH, period=NOVEMBER) == 0
    assert ledger.spent("sat") == 100_000


def test_unspent_slices_of_others_do_not_keep_flash_out(links) -> None:
    ledger = links({"sat": Cap(10_000, 0)}, slice_bytes=10_000).ledger
    spend(ledger, 100, precedence=NORMAL)
    assert ledger.spent("sat") == 10_000
    spend(ledger, 9_900, precedence=FLASH)
    with pytest.raises(BudgetExceededError):
        spend(ledger, 1, precedence=NORMAL)


def test_a_crash_leaves_the_rest_of_the_slice_spent_and_says_so(links) -> None:
    first = links(slice_bytes=8_000)
    spend(first.ledger, 500)
    first.ledger.reserve("sat", NORMAL, "batch", 700, period=NOVEMBER)
    second = links(slice_bytes=8_000)
    assert second.ledger.spent("sat", NOVEMBER) == 8_000
    assert "ledger.slice-lost" in names(second)
    assert sum(each.bytes_ip for each in second.ledger.totals()) == 8_000
    assert links().ledger.spent("sat", NOVEMBER) == 8_000


def test_a_clean_end_gives_the_rest_of_the_slice_back(links) -> None:
    first = links(slice_bytes=8_000)
    spend(first.ledger, 500)
    first.close()
    second = links()
    assert second.ledger.spent("sat", NOVEMBER) == 500
    assert "ledger.slice-lost" not in names(second)


def test_what_comes_unasked_is_booked_over_the_cap_and_then_nothing_leaves(links) -> None:
    opened = links({"sat": Cap(1_000)})
    opened.ledger.charge("sat", BULK, "refused", RECEIVED, 1_500, period=NOVEMBER)
    assert opened.ledger.spent("sat") == 1_500
    with pytest.raises(BudgetExceededError):
        spend(opened.ledger, 1)
    assert links({"sat": Cap(1_000)}).ledger.spent("sat", NOVEMBER) == 1_500


def test_more_than_was_reserved_is_booked_at_once(links) -> None:
    opened = links({"sat": Cap(1_000)}, slice_bytes=100)
    reservation = opened.ledger.reserve("sat", NORMAL, "batch", 100, period=NOVEMBER)
    opened.ledger.settle(reservation, sent_bytes=100, received_bytes=950)
    assert links({"sat": Cap(1_000)}).ledger.spent("sat", NOVEMBER) == 1_050


def test_a_reservation_is_settled_once_and_not_by_the_thousand_never(links) -> None:
    ledger = links().ledger
    reservation = ledger.reserve("lte", NORMAL, "batch", 10, period=NOVEMBER)
    ledger.settle(reservation, sent_bytes=0, received_bytes=0)
    with pytest.raises(ValueError, match="before"):
        ledger.settle(reservation, sent_bytes=0, received_bytes=0)
    for _ in range(RESERVATIONS_MAX):
        ledger.reserve("lte", NORMAL, "batch", 1, period=NOVEMBER)
    with pytest.raises(StoreError, match="not being settled"):
        ledger.reserve("lte", NORMAL, "batch", 1, period=NOVEMBER)


def test_a_link_without_a_stated_budget_spends_nothing(links) -> None:
    ledger = links().ledger
    with pytest.raises(BudgetExceededError, match="usb"):
        spend(ledger, 1, link="usb")
    assert ledger.left("usb", NORMAL, period=NOVEMBER) == 0
    assert ledger.left("lte", NORMAL, period=NOVEMBER) is None
    with pytest.raises(ValueError, match="0 bytes or more"):
        spend(ledger, -1)


def test_a_lowered_cap_stops_at_once_and_a_raised_one_goes_on(links) -> None:
    ledger = links(slice_bytes=100).ledger
    spend(ledger, 5_000)
    ledger.set_caps({"sat": Cap(5_000)})
    with pytest.raises(BudgetExceededError):
        spend(ledger, 200)
    ledger.set_caps({"sat": Cap(6_000)})
    spend(ledger, 900)


def test_a_new_month_opens_only_by_a_known_clock_and_an_old_one_never_again(links) -> None:
    ledger = links().ledger
    spend_all(ledger)
    for period in (None, 202610):
        with pytest.raises(BudgetExceededError):
            spend(ledger, 1, period=period)
    spend(ledger, 70_000, period=DECEMBER)
    with pytest.raises(BudgetExceededError):
        spend(ledger, 21_000, period=NOVEMBER)
    ledger = links().ledger
    assert ledger.period == DECEMBER
    assert ledger.spent("sat", NOVEMBER) == 90_000


def test_bytes_of_an_unknown_clock_count_in_the_open_and_in_the_next_month(links) -> None:
    ledger = links(slice_bytes=100).ledger
    spend(ledger, 20_000, period=NOVEMBER)
    spend(ledger, 3_000, period=None)
    spend(ledger, 1_000, period=DECEMBER)
    assert ledger.spent("sat", NOVEMBER) == 23_000
    assert ledger.spent("sat", DECEMBER) == 4_000
    booked = {each.period: each.bytes_ip for each in ledger.totals()}
    assert booked == {NOVEMBER: 23_000, DECEMBER: 1_000}


def test_an_unknown_clock_that_turns_out_to_be_the_same_month_counts_once(links) -> None:
    ledger = links(slice_bytes=100).ledger
    spend(ledger, 20_000, period=NOVEMBER)
    spend(ledger, 3_000, period=None)
    spend(ledger, 1_000, period=NOVEMBER)
    spend(ledger, 500, period=DECEMBER)
    assert ledger.spent("sat", NOVEMBER) == 24_000
    assert ledger.spent("sat", DECEMBER) == 500


def test_a_first_boot_without_a_clock_counts_in_the_first_month(links) -> None:
    ledger = links(slice_bytes=100).ledger
    spend(ledger, 30_000, period=None)
    assert ledger.period == 0
    spend(ledger, 1_000, period=NOVEMBER)
    assert ledger.spent("sat") == 31_000
    with pytest.raises(BudgetExceededError):
        spend(ledger, 60_000)


def test_what_is_under_way_at_the_turn_of_the_month_counts_in_both(links) -> None:
    ledger = links(slice_bytes=100).ledger
    reservation = ledger.reserve("sat", NORMAL, "batch", 5_000, period=NOVEMBER)
    spend(ledger, 1_000, period=DECEMBER)
    ledger.settle(reservation, sent_bytes=4_000, received_bytes=0)
    assert ledger.spent("sat", NOVEMBER) >= 5_000
    ledger.release()
    assert ledger.spent("sat", DECEMBER) == 5_000


def test_an_undone_transaction_loses_no_booking(links, monkeypatch) -> None:
    opened = links(slice_bytes=1_000)
    spend(opened.ledger, 900)
    real = opened.database.insert

    def fail(*_values: object, **_options: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(opened.database, "insert", fail)
        with pytest.raises(OSError):
            spend(opened.ledger, 900)
    assert opened.database.insert == real
    spend(opened.ledger, 900)
    opened.ledger.release()
    assert opened.ledger.spent("sat") == 1_800
    assert sum(each.bytes_ip for each in opened.ledger.totals()) == 1_800


def test_a_lost_database_is_made_up_for_by_its_marks(links, tmp_path: Path) -> None:
    first = links()
    spend(first.ledger, 60_000)
    first.close()
    (tmp_path / "links.db").write_bytes(b"rotten" * 1_000)
    second = links()
    assert "ledger.recovered" in names(second)
    assert second.ledger.spent("sat", NOVEMBER) >= 60_000
    assert second.ledger.period == NOVEMBER
    assert not second.ledger.in_doubt("sat")
    assert spend_all(second.ledger) <= 30_000


def test_an_older_copy_is_made_up_for_by_its_marks(links, tmp_path: Path) -> None:
    first = links()
    first.close()
    shutil.copy(tmp_path / "links.db", tmp_path / "backup")
    second = links()
    spend(second.ledger, 60_000)
    second.close()
    shutil.copy(tmp_path / "backup", tmp_path / "links.db")
    third = links()
    assert third.database.restored
    assert third.ledger.spent("sat", NOVEMBER) >= 60_000
    assert not third.ledger.in_doubt("sat")


def restore_everything(links, tmp_path: Path) -> Links:
    first = links()
    spend(first.ledger, 1_000)
    first.close()
    shutil.copytree(tmp_path, tmp_path / "backup")
    second = links()
    spend(second.ledger, 60_000)
    second.close()
    for each in (tmp_path / "backup").iterdir():
        (tmp_path / each.name).unlink(missing_ok=True)
        shutil.copy2(each, tmp_path / each.name)
    return links()


@pytest.mark.parametrize("period", [NOVEMBER, DECEMBER])
def test_after_restoring_everything_only_the_reserve_is_spent_until_the_next_month(links, tmp_path, period) -> None:
    opened = restore_everything(links, tmp_path)
    assert "ledger.in-doubt" in names(opened)
    with pytest.raises(BudgetExceededError):
        spend(opened.ledger, 1, period=None)
    with pytest.raises(BudgetExceededError):
        spend(opened.ledger, 1, period=period)
    spend(opened.ledger, 1, link="lte", period=period)
    assert spend_all(opened.ledger, FLASH, period=period) == 10_000
    opened = links()
    with pytest.raises(BudgetExceededError):
        spend(opened.ledger, 1, period=period)
    spend(opened.ledger, 50_000, period=JANUARY)


def test_the_gateways_account_ends_a_doubt(links, tmp_path: Path) -> None:
    opened = restore_everything(links, tmp_path)
    with pytest.raises(BudgetExceededError):
        spend(opened.ledger, 1)
    opened.ledger.reconcile("sat", Spent(flash=0, other=61_000))
    assert spend_all(opened.ledger) == 29_000
    assert not links().ledger.in_doubt("sat")


def test_a_flipped_bit_in_the_marks_leaves_the_other_slot(links, tmp_path: Path) -> None:
    first = links(slice_bytes=1_000)
    for _ in range(5):
        spend(first.ledger, 1_000)
    first.close()
    marks = tmp_path / "links.db.marks"
    for slot in (0, 1):
        data = bytearray(marks.read_bytes())
        data[slot * 4_096 + 20] ^= 16
        broken = tmp_path / f"broken-{slot}"
        shutil.copytree(tmp_path, broken, ignore=shutil.ignore_patterns("broken*"))
        (broken / "links.db.marks").write_bytes(data)
        (broken / "links.db").write_bytes(b"rotten" * 1_000)
        again = open_links(broken / "links.db", CAPS)
        assert again.ledger.spent("sat", NOVEMBER) >= 4_000
        again.close()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("spend"), st.sampled_from(list(Precedence)), st.integers(1, 4_000), st.floats(0, 1)),
        st.tuples(st.just("open"), st.sampled_from(list(Precedence)), st.integers(1, 4_000), st.floats(0, 1)),
        st.tuples(st.just("crash"), st.booleans()),
        st.tuples(st.just("clock"), st.sampled_from([None, NOVEMBER, DECEMBER])),
    ),
    max_size=40,
)


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(bytes_max=st.integers(0, 30_000), reserve=st.integers(0, 5_000), slice_size=st.integers(1, 9_000), steps=steps)
def test_what_really_left_in_a_month_never_passes_its_cap(bytes_max, reserve, slice_size, steps) -> None:
    caps = {"sat": Cap(bytes_max, reserve)}
    left = {NOVEMBER: 0, DECEMBER: 0}
    by_others = {NOVEMBER: 0, DECEMBER: 0}
    clock: int | None = None
    month = NOVEMBER  # the true one; it only goes on
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "links.db"
        opened = open_links(path, caps, slice_bytes=slice_size)
        waiting = []
        for step in steps:
            if step[0] == "clock":
                clock = step[1]
                month = max(month, clock or 0)
            elif step[0] == "crash":
                opened.close() if step[1] else opened.database.crash()
                waiting = []
                opened = open_links(path, caps, slice_bytes=slice_size)
            else:
                _, precedence, worst, part = step
                asked = clock if clock == month else None
                try:
                    reservation = opened.ledger.reserve("sat", precedence, "batch", worst, period=asked)
                except BudgetExceededError:
                    continue
                actual = int(worst * part)
                left[month] += actual
                by_others[month] += actual if precedence is not FLASH else 0
                if step[0] == "open":
                    waiting.append((reservation, actual))
                else:
                    opened.ledger.settle(reservation, sent_bytes=actual, received_bytes=0)
                if waiting and step[0] == "spend":
                    reservation, actual = waiting.pop(0)
                    opened.ledger.settle(reservation, sent_bytes=actual, received_bytes=0)
            assert all(amount <= bytes_max for amount in left.values())
            assert all(amount <= max(0, bytes_max - reserve) for amount in by_others.values())
        assert opened.database.damage() == ()
        opened.close()
