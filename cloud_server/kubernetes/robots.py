"""Many robots asked at once, each a cluster of its own; one that does not answer harms no other."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

from cloud_server.kubernetes.kubeconfig import KubeConfig
from cloud_server.state.words import names
from fleet_model.errors import FleetError, LossError, SettingsError
from fleet_model.kubernetes.api import Cluster
from fleet_model.kubernetes.connection import Patience

T = TypeVar("T")


@dataclass(slots=True)
class Outcome(Generic[T]):
    """What one robot has answered."""

    robot: str  # its context
    result: T  # what was done or seen; the first part of it where there is an error
    error: FleetError | None = None
    seconds: float = 0.0

    @property
    def problem(self) -> str:
        """Return why it has not answered, without its own name; "" if it has."""
        return "" if self.error is None else str(self.error).removeprefix(f"{self.robot}: ")


def chosen_contexts(kubeconfig: KubeConfig, patterns: Sequence[str]) -> list[str]:
    """Return the contexts that fit a name or a pattern such as robot-*, in order.

    Raises:
        SettingsError: no pattern is given, or one fits nothing. A kubeconfig often has clusters
            that are no robots, so there is no default.
    """
    known = kubeconfig.contexts
    where = ", ".join(map(str, kubeconfig.files))
    if not patterns:
        raise SettingsError(
            f"name the robots: --context NAME, or --context '*' for all of {where}: {names(known)}"
        )
    for pattern in patterns:
        if not any(fnmatchcase(one, pattern) for one in known):
            raise SettingsError(
                f"--context {pattern}: {where} has no such context; known are: {names(known)}"
            )
    return [one for one in known if any(fnmatchcase(one, pattern) for pattern in patterns)]


def ask_all(
    kubeconfig: KubeConfig,
    contexts: Sequence[str],
    patience: Patience,
    parallel: int,
    empty: Callable[[], T],
    ask: Callable[[Cluster, T], None],
) -> list[Outcome[T]]:
    """Ask every robot, `parallel` at a time; return an outcome for each, in their order.

    Args:
        kubeconfig: says how they are reached.
        contexts: the robots.
        patience: with each of them.
        parallel: at most.
        empty: makes the result that `ask` fills.
        ask: is called in another thread, once the cluster has answered; may raise FleetError.
    """
    outcomes = [Outcome(context, empty()) for context in contexts]
    waiting: queue.SimpleQueue[Outcome[T]] = queue.SimpleQueue()
    done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    for outcome in outcomes:
        waiting.put(outcome)

    def work() -> None:
        while True:
            try:
                outcome = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                _ask(outcome, kubeconfig, patience, ask)
            except BaseException as error:  # noqa: BLE001  (raised again in the main thread)
                done.put(error)
            else:
                done.put(None)

    for _ in range(min(parallel, len(outcomes))):
        # Daemons: Ctrl-C does not wait for a robot that is silent.
        threading.Thread(target=work, daemon=True).start()
    for _ in outcomes:
        if (error := done.get()) is not None:
            raise error
    return outcomes


def require_all(outcomes: Sequence[Outcome[T]], what: str) -> None:
    """Raise an error that names the robots without an answer, if there are any.

    Raises:
        LossError: some have answered.
        FleetError: none has; of the kind of the first.
    """
    failed = [one for one in outcomes if one.error is not None]
    if not failed:
        return
    of = f"{len(failed)} of {len(outcomes)} robots {what}: {names(one.robot for one in failed)}"
    if len(failed) < len(outcomes):
        raise LossError(f"{of}; the same command tries them again")
    first = failed[0].error
    assert first is not None
    raise type(first)(of)


def _ask(
    outcome: Outcome[T],
    kubeconfig: KubeConfig,
    patience: Patience,
    ask: Callable[[Cluster, T], None],
) -> None:
    begin = time.monotonic()
    try:
        connection = kubeconfig.connection(outcome.robot, patience)
        with Cluster(connection) as cluster:
            cluster.version()  # a robot that is off costs one short wait
            ask(cluster, outcome.result)
    except FleetError as error:
        outcome.error = error
    finally:
        outcome.seconds = time.monotonic() - begin
