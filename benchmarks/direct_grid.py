"""The leanest way to run Flower's strategies over many clients: a Grid that calls the ClientApp.

No SuperLink, no sockets, no Ray, one process: the harder peer for a loop of virtual robots.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity


class DirectGrid(Grid):
    """Answer every message at once and keep the replies until they are pulled."""

    def __init__(self, app: ClientApp, nodes: int) -> None:
        # Since 1.41 a Message can only be made inside a task: set an identity first.
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1
        self._app = app
        self._replies: dict[str, Message] = {}
        self._contexts: Mapping[int, Context] = {
            number + 2: Context(
                run_id=1,
                node_id=number + 2,
                node_config={"partition-id": number},
                state=RecordDict(),
                run_config={},
                series_id=1,
            )
            for number in range(nodes)
        }
        self._sent = 0

    def set_run(self, run: Any) -> None:
        """Do nothing: there is one run."""

    @property
    def run(self) -> Any:
        """Return no run; the built-in strategies do not ask."""
        return None

    def create_message(self, *_: Any, **__: Any) -> Message:
        """Refuse the deprecated way."""
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        """Return all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Let the ClientApp answer."""
        ids = []
        for message in messages:
            self._sent += 1
            message.metadata.__dict__["_message_id"] = ticket = f"m{self._sent}"
            context = self._contexts[message.metadata.dst_node_id]
            self._replies[ticket] = self._app(message=message, context=context)
            ids.append(ticket)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Hand out the replies once."""
        return [self._replies.pop(ticket) for ticket in message_ids if ticket in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Push and pull."""
        return self.pull_messages(self.push_messages(messages))
