"""kill -9 at every step of a round: the next server ends the run with the very same bits."""

import json
import re

import pytest

pytestmark = [pytest.mark.slow]

STEPS = [  # (step, which call of it, the round it leaves open); a round sends once, keeps twice
    ("half sent", 2, 2),
    ("send+", 2, 2),
    ("half kept+", 3, 2),
    ("half a checkpoint", 4, 2),  # its second tensor file
    ("history+", 2, None),
    ("publish", 1, None),
]
MORE = [
    ("send", 2, 2),
    ("keep", 3, 2),
    ("keep+", 3, 2),
    ("checkpoint+", 2, None),
    ("close+", 2, None),
    ("run file", 5, None),
    ("prune+", 2, None),
    ("publish+", 1, None),
]


@pytest.mark.parametrize(
    ("step", "nth", "left_open"),
    [*STEPS, *(pytest.param(*one, marks=pytest.mark.soak) for one in MORE)],
)
def test_a_server_that_is_killed_goes_on_and_ends_with_the_same_bits(
    killed, undisturbed, step, nth, left_open
):
    killed.start(step, nth)
    killed.go()
    run = killed.client.start_run(3)
    killed.until_killed()

    killed.start()
    run = killed.ended(run["id"])

    assert (run["state"], run["error"], run["rounds_closed"]) == ("finished", "", 3)
    assert killed.weights() == undisturbed
    assert run["published_version"] == undisturbed[0]
    lines = [json.loads(line) for line in killed.server_dir.history.read_text().splitlines()]
    assert [(line["run"], line["round"]) for line in lines] == [(run["id"], n) for n in (1, 2, 3)]
    assert {r["outcome"].partition(",")[0] for line in lines for r in line["robots"]} == {
        "accepted"
    }
    said = killed.said()
    assert f"run {run['id']} continues after round" in said
    assert re.findall(r"round (\d+) is taken up again", said) == [str(left_open)] * bool(left_open)
    assert ("bytes of an unfinished reply are dropped" in said) == (step == "half kept+")
    last, again = (words for words in killed.words() if words.startswith(f"run {run['id']} "))
    assert last.startswith(f"run {run['id']} round 3 closed in ")
    assert last.endswith(f" with version {undisturbed[0]}: accepted r1, r2")
    assert re.fullmatch(rf"run {run['id']} was taken up again after round [123]: .+", again)


@pytest.mark.parametrize(
    ("step", "nth"),
    [("half a checkpoint", 4), pytest.param("checkpoint", 2, marks=pytest.mark.soak)],
)
def test_no_reply_that_was_kept_is_asked_for_again(killed, step, nth):
    killed.start(step, nth)
    killed.go()
    run = killed.client.start_run(3)
    killed.until_killed()

    killed.start()
    killed.ended(run["id"])

    for robot in killed.robots.values():
        assert set(robot.trained.values()) == {1}


def test_a_second_kill_is_survived_as_well(killed, undisturbed):
    killed.start("keep+", 2)
    killed.go()
    run = killed.client.start_run(3)
    killed.until_killed()
    (killed.server_dir.root / "killed").unlink()

    killed.start("half a checkpoint", 2, wait=False)
    killed.until_killed()
    killed.start()
    run = killed.ended(run["id"])

    assert run["state"] == "finished"
    assert killed.weights() == undisturbed


def test_a_robot_that_is_killed_in_mid_training_is_asked_again_and_the_run_goes_on(
    killed, undisturbed
):
    killed.robots["r2"].dies = True
    killed.start()
    killed.go()

    run = killed.ended(killed.client.start_run(3)["id"])

    assert run["state"] == "finished"
    assert killed.weights() == undisturbed
    assert sorted(killed.robots["r2"].trained.values()) == [1, 1, 2]
    assert any(words.endswith(": accepted r1, r2") for words in killed.words())
    assert "round 1: robot r2: update received" in killed.said()
