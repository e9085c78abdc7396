"""Predictions follow the schema's weights, and a first value teaches nothing about changes."""

from protocol.rangecoder import Coder, RangeEncoder
from protocol.rows import Row, RowModel
from protocol.schema import Channel, Codec, Schema


class Listener:
    """Keeps the residuals and activities that a channel's model is asked to code."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int]] = []

    def code(self, coder: Coder, residual: int, activity: int) -> int:
        self.heard.append((residual, activity))
        return residual

    def copy(self) -> "Listener":
        return self


def heard(schema: Schema, rows: list[Row]) -> list[list[tuple[int, int]]]:
    listeners = [Listener() for _ in schema.channels]
    model = RowModel(schema, models=listeners)
    for row in rows:
        assert model.code(RangeEncoder(), row) == row
    return [listener.heard for listener in listeners]


def residuals(schema: Schema, columns: list[list[int | None]]) -> list[list[int]]:
    rows: list[Row] = [(60 * at, values) for at, values in enumerate(zip(*columns, strict=True))]
    return [[residual for residual, _ in channel] for channel in heard(schema, rows)]


def test_a_channel_is_predicted_by_its_last_value() -> None:
    assert residuals(Schema((Channel("a"),)), [[7, 9, 9, 4]]) == [[2, 0, -5]]


def test_weights_follow_a_channel_of_the_same_row() -> None:
    schema = Schema((Channel("a"), Channel("b", weights=((0, 2 * 4096),))))
    assert residuals(schema, [[0, 5, 7], [100, 110, 115]]) == [[5, 2], [0, 1]]


def test_the_order_of_coding_turns_weights_around() -> None:
    schema = Schema((Channel("a", weights=((1, 4096),)), Channel("b")), order=(1, 0))
    assert residuals(schema, [[0, 5], [3, 8]]) == [[0], [5]]


def test_history_follows_a_change_one_row_ago() -> None:
    schema = Schema((Channel("a", history=((1, 4096),)), Channel("b")))
    assert residuals(schema, [[0, 0, 6, 6], [0, 6, 6, 6]])[0] == [0, 0, 0]


def test_trend_follows_the_channels_own_changes() -> None:
    schema = Schema((Channel("a", trend=(0, 4096)),))
    assert residuals(schema, [[500, 501, 501, 502, 502]]) == [[1, 0, 0, 0]]


def test_pull_leads_back_to_nominal() -> None:
    assert residuals(Schema((Channel("a", nominal=100, pull=2048),)), [[120, 110, 105]]) == [[0, 0]]


def test_a_missing_value_leaves_its_channel_as_it_was() -> None:
    assert residuals(Schema((Channel("a"), Channel("b"))), [[7, None, 9], [None, 3, 4]]) == [[2], [1]]


def test_a_base_stands_for_all_rows_before_and_stays_as_it_is() -> None:
    schema = Schema((Channel("a"), Channel("b", history=((0, 4096),))), codec=Codec.CARRIED)
    first = RowModel(schema)
    for row in ((0, (1, 1)), (60, (7, 2))):
        first.code(RangeEncoder(), row)
    costs = []
    for _ in range(2):
        coder, model = RangeEncoder(), RowModel(schema, first)
        model.code(coder, (120, (8, 8)))
        costs.append(coder.finish())
    alone = RangeEncoder()
    RowModel(schema).code(alone, (120, (8, 8)))
    assert costs[0] == costs[1]
    assert len(costs[0]) < len(alone.finish())


def test_neighbours_raise_the_expected_error() -> None:
    schema = Schema((Channel("a"), Channel("b", activity=(0, 0, 0, 0, 0), neighbours=((0, 2048),))))
    activities = [activity for _, activity in heard(schema, [(0, (0, 0)), (60, (10, 0)), (120, (10, 0))])[1]]
    assert activities == [5 * 256, 0]


def test_activity_weighs_the_last_error() -> None:
    schema = Schema((Channel("a", typical=3, activity=(7, 256, 0, 0, 0)),))
    activities = [activity for _, activity in heard(schema, [(0, (0,)), (60, (9,)), (120, (9,))])[0]]
    assert activities == [7 + 3 * 256, 7 + 9 * 256]
