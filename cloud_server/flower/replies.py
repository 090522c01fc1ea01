"""What a robot's Flower message means to the round loop; nothing in it is trusted."""

from flwr.app import Message, RecordDict

from cloud_server.rounds.fleet import Reply
from fleet_model.errors import UpdateError
from fleet_model.protocol.outcome import NOT_ADMITTED, Outcome, unpack_failure
from fleet_model.protocol.wire import unpack_update


def content_of(message: Message) -> RecordDict | Outcome:
    """Return what a reply holds, or the robot's own word for why it holds nothing."""
    if message.has_error():
        return unpack_failure(message.error.code, message.error.reason or "")
    content: object = message.content  # whatever the robot has sent
    if not isinstance(content, RecordDict):
        return Outcome("refused", f"the reply holds {type(content).__name__}")
    return content


def reply_of(ticket: str, content: RecordDict | Outcome, robot: str | None) -> Reply:
    """Return the reply of a robot.

    Args:
        ticket: of the question.
        content: of the robot's message, or why there is none.
        robot: its name in the register; None if it is no longer approved.
    """
    if isinstance(content, Outcome):
        return Reply(ticket=ticket, outcome=content)
    if robot is None:
        return Reply(ticket=ticket, outcome=NOT_ADMITTED)
    try:
        return Reply(ticket=ticket, update=unpack_update(content, robot))
    except UpdateError as error:
        return Reply(ticket=ticket, outcome=Outcome("refused", str(error)))
