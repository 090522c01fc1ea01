"""The running sums."""

import pytest

from cloud_server.console.compare.board import Board


def answers(*models, agree):
    told = [{"found": [{"label": label}] if label else [], "ms": ms} for label, ms in models]
    return {"answers": told, "agree": agree}


def test_a_board_tells_speed_agreement_and_accuracy():
    board = Board(2)
    board.add(answers(("cat", 8.0), ("cat", 2.0), agree=[1.0, 1.0]), "cat")
    board.add(answers(("cat", 12.0), ("dog", 3.0), agree=[1.0, 0.0]), "cat")
    board.add(answers(("dog", 10.0), ("", 2.5), agree=[1.0, 0.0]))
    told = board.told()
    assert (told.requests, told.labelled) == (3, 2)
    assert told.of_one_mind == pytest.approx(1 / 3)
    first, second = told.standings
    assert (first.milliseconds, first.speed_up, first.agreement, first.accuracy) == (10, 1, 1, 1)
    assert (second.milliseconds, second.speed_up, second.accuracy) == (2.5, 4, 0.5)
    assert second.agreement == pytest.approx(1 / 3)


def test_a_new_board_knows_nothing():
    board = Board(2)
    board.add(answers(("cat", 8.0), ("cat", 2.0), agree=[1.0, 1.0]), "cat")
    board.clear()
    told = board.told()
    assert (told.requests, told.labelled, told.of_one_mind) == (0, 0, None)
    assert set(told.standings[1]) == {None}
