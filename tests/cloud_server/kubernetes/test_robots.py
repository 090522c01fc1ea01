"""Many robots at once: in order, never more than told, and no error of a thread is lost."""

import threading

import pytest
from loopback_cluster import write_kubeconfig

from cloud_server.kubernetes.kubeconfig import KubeConfig
from cloud_server.kubernetes.robots import Outcome, ask_all, chosen_contexts, require_all
from fleet_model.errors import ConnectionFailed, LossError, RefusedError, SettingsError
from fleet_model.kubernetes.connection import Patience


@pytest.fixture
def robots(new_cluster, tmp_path):
    """Return a kubeconfig of six contexts, r1 to r6, of one cluster."""
    cluster = new_cluster()
    parts = [cluster.kubeconfig(f"r{number}") for number in range(1, 7)]
    return KubeConfig([write_kubeconfig(tmp_path / "kubeconfig", *parts)])


def ask(robots, how, parallel=16):
    return ask_all(robots, robots.contexts, Patience(), parallel, list, how)


def test_outcomes_come_in_the_order_of_the_robots_and_at_most_so_many_are_asked(robots):
    inside, most, lock = set(), [0], threading.Lock()
    two = threading.Barrier(2, timeout=60)

    def how(cluster, into):
        with lock:
            inside.add(cluster.name)
            most[0] = max(most[0], len(inside))
        two.wait()  # two are asked at once
        into.append(cluster.name)
        with lock:
            inside.discard(cluster.name)

    outcomes = ask(robots, how, parallel=2)
    assert [one.result for one in outcomes] == [[name] for name in robots.contexts]
    assert most == [2]


def test_what_was_done_before_an_error_stays(robots):
    def how(cluster, into):
        into.append("first")
        if cluster.name == "r3":
            raise RefusedError(f"{cluster.name}: no")

    outcomes = ask(robots, how)
    assert [one.problem for one in outcomes] == ["", "", "no", "", "", ""]
    assert outcomes[2].result == ["first"]


def test_an_error_of_our_own_is_not_taken_for_a_robots(robots):
    def how(cluster, into):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(robots, how)


def test_the_end_names_who_is_missing(robots):
    def of(*errors):
        return [Outcome(f"r{number}", [], error) for number, error in enumerate(errors, 1)]

    require_all(of(None, None), "did not")
    with pytest.raises(LossError, match=r"^1 of 2 robots did not: r2; the same command tries them"):
        require_all(of(None, ConnectionFailed("r2: away")), "did not")
    with pytest.raises(RefusedError, match=r"^2 of 2 robots did not: r1, r2$"):
        require_all(of(RefusedError("r1: no"), ConnectionFailed("r2: away")), "did not")


def test_patterns_choose_and_each_must_fit(robots):
    assert chosen_contexts(robots, ["r[12]", "r6"]) == ["r1", "r2", "r6"]
    assert chosen_contexts(robots, ["*"]) == robots.contexts
    for patterns in ([], ["r1", "R2"]):
        with pytest.raises(SettingsError, match="r1, r2, r3, r4, r5, r6"):
            chosen_contexts(robots, patterns)
