from datetime import UTC, datetime, timedelta

from core.domain.batches import BatchEnding, EndedBatch, fruitless_rounds, room

START = datetime(2026, 1, 1, tzinfo=UTC)
FRUITFUL, BARREN, CROWDED = BatchEnding.FRUITFUL, BatchEnding.BARREN, BatchEnding.CROWDED


def ended(ending: BatchEnding, began: int, ended: int, lines: int = 10) -> EndedBatch:
    return EndedBatch(lines, ending, START + timedelta(minutes=began), START + timedelta(minutes=ended))


def test_batches_side_by_side_are_one_round() -> None:
    side_by_side = [ended(BARREN, 10, 20), ended(BARREN, 12, 19), ended(BARREN, 11, 18)]
    assert fruitless_rounds(side_by_side, BARREN) == 1
    before = [ended(BARREN, 3, 8), ended(BARREN, 0, 2)]
    assert fruitless_rounds([*side_by_side, *before], BARREN) == 3


def test_a_result_ends_the_row() -> None:
    history = [ended(BARREN, 20, 30), ended(FRUITFUL, 10, 20), ended(BARREN, 0, 10)]
    assert fruitless_rounds(history, BARREN) == 1
    assert fruitless_rounds(history[1:], BARREN) == 0
    assert fruitless_rounds([], BARREN) == 0
    assert fruitless_rounds([ended(CROWDED, 2, 3), ended(CROWDED, 0, 1)], CROWDED) == 2


def test_what_is_too_much_is_halved_and_what_passed_is_doubled() -> None:
    assert room([]) is None
    assert room([ended(FRUITFUL, 0, 1, 500)]) is None
    crowded = [ended(CROWDED, 0, 1, 500)]
    assert room(crowded) == 250
    assert room([ended(CROWDED, 2, 3, 250), *crowded]) == 125
    assert room([ended(FRUITFUL, 2, 3, 125), *crowded]) == 250
    assert room([ended(BARREN, 4, 5, 9), ended(FRUITFUL, 2, 3, 125), *crowded]) == 250
    assert room([ended(CROWDED, 0, 1, 1)]) == 1
