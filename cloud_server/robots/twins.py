"""Notice that one robot's key is used by two agents at once, such as by a cloned machine.

Each agent process has a number of its own. After a restart the old number never comes again; where
it does, both live. Kept in memory only: after a restart of the server two live agents are noticed
again within a few looks.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

TOLD_S = 600.0  # after the last time that both were heard
WORDS = (
    "two agents use this robot's key, such as on a cloned machine: give one of them a key of its "
    "own (stop it, remove agent.toml, robot.key and state, then `edge-agent enroll`), and admit it "
    "under another name"
)


@dataclass(slots=True)
class _Agents:
    current: str
    former: str = ""
    both_at_s: float = float("-inf")


class Twins:
    """Thread-safe."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._robots: dict[str, _Agents] = {}  # by name of the register

    def saw(self, name: str, agent: str) -> None:
        """Take note of the number of the agent that has asked, "" if it has none."""
        if not agent:
            return
        with self._lock:
            known = self._robots.setdefault(name, _Agents(agent))
            if agent == known.current:
                return
            if agent == known.former:
                known.both_at_s = self._now_s()
            known.current, known.former = agent, known.current

    def words(self, name: str) -> str:
        """Return what to tell of a robot whose key two agents use, "" if only one does."""
        known = self._robots.get(name)
        lately = known is not None and 0 <= self._now_s() - known.both_at_s < TOLD_S
        return WORDS if lately else ""
