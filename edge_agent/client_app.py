r"""The fallback: a Flower ClientApp for the stock `flower-supernode`, same training, same replies.

  flower-supernode --superlink HOST:PORT --root-certificates ca.crt \
      --auth-supernode-private-key robot.key --node-config 'agent="/etc/fleetlearn/agent.toml"'

Slower and larger than `edge-agent run`, because Flower starts a process for every message, but it
needs nothing of Flower's inside. The key is the robot's own: stop `edge-agent run` first.
"""

from contextlib import closing
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from edge_agent.deploy import Models
from edge_agent.fleet_client import answer
from edge_agent.local_training import LocalTraining
from edge_agent.server_link import HttpsStore
from edge_agent.settings import load_settings
from edge_agent.trainer import TRAINERS
from edge_agent.training_job import TrainingJob
from fleet_model.errors import SettingsError
from fleet_model.loading import load_plugin
from fleet_model.types import Update
from fleet_model.wire import TrainRequest

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer one train message in this process, which ends with it."""
    return answer(message, lambda request: _train(request, context))


def _train(request: TrainRequest, context: Context) -> Update:
    path = context.node_config.get("agent")
    if not isinstance(path, str):
        raise SettingsError("node config lacks agent=PATH of this robot's agent.toml")
    settings = load_settings(Path(path))
    with closing(HttpsStore(settings.server)) as store:
        name, _ = store.whoami()
        local = LocalTraining(settings, Models(settings.state / "models"), store, _fit)
        return local.train(request, name)


def _fit(job: TrainingJob, _: float) -> Update:  # Flower ends this process itself
    trainer = load_plugin(TRAINERS, job.trainer)(job.spec, job.directory)
    update: Update = trainer.fit(job.checkpoint, job.examples.open(), job.config)
    return update
