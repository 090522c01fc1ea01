"""Run the agent as a service: until SIGTERM or Ctrl-C, and then end in time."""

import logging
import os
import queue
import signal
import threading
from concurrent.futures import Future, wait

from edge_agent.agent import Agent
from edge_agent.settings import AgentSettings

GRACE_S = 1.2  # from SIGTERM to the end, whatever the network does


def serve(settings: AgentSettings) -> None:
    """Run an agent until SIGINT or SIGTERM; raises as `Agent.run` does.

    The agent has a thread of its own: Python handles a signal only between two steps of the main
    thread, and looking up a name or connecting may take half a minute where the network is gone.
    """
    agent = Agent(settings)
    ended: Future[None] = Future()
    wake: queue.SimpleQueue[None] = queue.SimpleQueue()  # its put may interrupt its get
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: wake.put(None))
    ended.add_done_callback(lambda _: wake.put(None))
    threading.Thread(target=_run_into, args=(ended, agent), name="agent", daemon=True).start()
    wake.get()
    agent.stop()
    if wait([ended], GRACE_S).done:
        ended.result()
    else:
        agent.abandon()
        logging.shutdown()
        os._exit(0)  # Python's own end may wait for what the hanging thread holds


def _run_into(ended: "Future[None]", agent: Agent) -> None:
    try:
        agent.run()
    except BaseException as error:  # noqa: BLE001  (raised again in the main thread)
        ended.set_exception(error)
    else:
        ended.set_result(None)
