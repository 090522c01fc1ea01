r"""The fallback: a Flower ClientApp for the stock `flower-supernode`, same training, same replies.

  flower-supernode --superlink HOST:PORT --root-certificates ca.crt \
      --auth-supernode-private-key robot.key --node-config 'agent="/etc/fleetlearn/agent.toml"'

Slower and larger than `edge-agent run`, because Flower starts a process for every message, but it
needs nothing of Flower's inside. The key is the robot's own: stop `edge-agent run` first.
"""

import time
from contextlib import closing
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from edge_agent.link.fleet_client import LATE, answer
from edge_agent.link.server_link import HttpsStore
from edge_agent.models.deploy import Models
from edge_agent.robot.settings import load_settings
from edge_agent.training.local_training import LocalTraining
from edge_agent.training.training_process import TrainingProcess, environment_of
from fleet_model.errors import SettingsError, UpdateError
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import Update

app = ClientApp()


@app.query()
@app.evaluate()
@app.train()
def answer_one(message: Message, context: Context) -> Message:
    """Answer one message of any kind; Flower ends this process with it.

    Raises:
        UpdateError: the server waits no longer. Flower logs it.
    """
    asked = message.metadata
    left_s = asked.created_at + asked.ttl - time.time()  # Flower takes no clock over 5 s ahead
    if left_s <= 0:
        raise UpdateError(LATE)
    return answer(message, lambda request: _work(request, context), left_s)


def _work(request: RobotRequest, context: Context) -> Update:
    path = context.node_config.get("agent")
    if not isinstance(path, str):
        raise SettingsError("node config lacks agent=PATH of this robot's agent.toml")
    settings = load_settings(Path(path))
    environment = environment_of(settings.training)
    # In a process of its own, because nothing else can end a fit whose time is over.
    with closing(HttpsStore(settings.server)) as store, TrainingProcess(environment) as process:
        name, _ = store.whoami()
        models = Models(settings.state / "models", settings.server.channel)
        standing = store.standing
        counted = standing.counted_run, standing.counted_version
        local = LocalTraining(settings, models, store, process.fit, lambda: counted)
        return local.answer(request, name)
