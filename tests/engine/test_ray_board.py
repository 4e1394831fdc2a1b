"""The board that the tasks of a Ray cluster take files from."""

from weightsmith.engine.executors.ray_node import Board
from weightsmith.engine.receipts import Receipt


def receipt(name: str) -> Receipt:
    return Receipt("plan", name, 1, "", {}, {})


def test_every_file_is_given_away_once_in_order_to_whoever_is_free() -> None:
    board = Board([2, 0, 1])
    first, second = board.begin(0), board.begin(1)
    assert [board.take(0, first, "a", None), board.take(1, second, "b", None)] == [2, 0]
    assert board.take(1, second, "b", receipt("of 0")) == 1
    assert board.take(0, first, "a", receipt("of 2")) is None
    assert board.take(1, second, "b", receipt("of 1")) is None
    seen = board.look()
    assert [each.shard for each in seen.made] == ["of 0", "of 2", "of 1"]
    assert not seen.begun_again
    assert not board.look().made


def test_the_file_of_a_lost_node_is_made_again_and_told_and_no_other() -> None:
    board = Board([0, 1, 2])
    lost, other = board.begin(0), board.begin(1)
    assert board.take(0, lost, "a", None) == 0
    assert board.take(0, lost, "a", receipt("of 0")) == 1
    assert board.take(1, other, "b", None) == 2
    again = board.begin(0)
    assert board.take(1, other, "b", receipt("of 2")) == 1
    assert board.look().begun_again == [(1, "a", "b")]
    assert board.take(0, again, "c", None) is None


def test_a_node_that_was_only_thought_lost_hands_in_its_file_and_is_given_no_other() -> None:
    board = Board([0, 1])
    thought_lost = board.begin(0)
    assert board.take(0, thought_lost, "a", None) == 0
    again = board.begin(0)
    assert board.take(0, thought_lost, "a", receipt("of 0")) is None
    assert [each.shard for each in board.look().made] == ["of 0"]
    assert board.take(0, again, "b", None) == 0


def test_bytes_are_those_of_every_file_and_a_lost_one_begins_at_none() -> None:
    board = Board([0, 1])
    first, second = board.begin(0), board.begin(1)
    board.take(0, first, "a", None)
    board.take(1, second, "b", None)
    board.tell(0, 5)
    board.tell(1, 3)
    assert board.look().nbytes == 8
    board.take(0, board.begin(0), "c", None)
    assert board.look().nbytes == 3


def test_a_board_that_is_stopped_gives_no_file_away_and_says_who_is_at_work() -> None:
    board = Board([0, 1, 2])
    first, second = board.begin(0), board.begin(1)
    board.take(0, first, "a", None)
    board.take(1, second, "b", None)
    assert board.stop() == [0, 1]
    assert board.take(0, first, "a", receipt("of 0")) is None
    assert board.take(2, board.begin(2), "a", None) is None
    assert board.take(1, board.begin(1), "c", None) is None
