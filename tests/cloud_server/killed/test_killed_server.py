"""kill -9 at every step of a round: the next server ends the run with the very same bits."""

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = [  # (step, which call of it); a round sends once, keeps once or twice
    ("half sent", 2),
    ("send+", 2),
    ("half kept+", 3),
    ("half a checkpoint", 4),  # the second tensor file of round 2
    ("history+", 2),
    ("publish", 1),
]
MORE = [
    ("send", 2),
    ("keep", 3),
    ("keep+", 3),
    ("checkpoint+", 2),
    ("close+", 2),
    ("run file", 5),
    ("prune+", 2),
    ("publish+", 1),
]


@pytest.mark.parametrize(
    ("step", "nth"), [*STEPS, *(pytest.param(*one, marks=pytest.mark.soak) for one in MORE)]
)
def test_a_server_that_is_killed_goes_on_and_ends_with_the_same_bits(
    killed, undisturbed, step, nth
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
    lines = [json.loads(line) for line in killed.place.history.read_text().splitlines()]
    assert [(line["run"], line["round"]) for line in lines] == [(run["id"], n) for n in (1, 2, 3)]
    assert all(r["outcome"] == "accepted" for line in lines for r in line["robots"])


@pytest.mark.parametrize(("step", "nth"), [("half a checkpoint", 4), ("checkpoint", 2)])
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
    (killed.place.root / "killed").unlink()

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
