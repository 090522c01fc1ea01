"""Record a request and an update as commit 87262d4 packs them, as Flower's objects by id.

Run by its own environment: `make .venv-old/.installed`, then
`.venv-old/bin/python tests/data/make_old_messages.py tests/data/messages_87262d4.json`.
"""

import base64
import json
import sys
from pathlib import Path

import numpy as np
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fleet_model.types import Checkpoint, TrainConfig, Update
from fleet_model.wire import TrainRequest, pack_request, pack_update

WEIGHTS = {"head/kernel": np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)}
REQUEST = TrainRequest(
    run="20251122-000000",
    round=2,
    checkpoint=Checkpoint(version=3, weights=WEIGHTS),
    config=TrainConfig(epochs=2, learning_rate=0.5, proximal_mu=0.1, clip_norm=2.0, seed=9),
    trainer="ab" * 32,
    trainer_bytes=927,
    deadline_s=60.0,
)
UPDATE = Update(
    robot="",
    base_version=3,
    weights=WEIGHTS,
    num_examples=20,
    num_steps=5,
    metrics={"loss_after": 0.25, "held_out": 4.0},
)
recorded = {}
for name, content in (("request", pack_request(REQUEST)), ("update", pack_update(UPDATE))):
    objects = get_all_nested_objects(content)
    recorded[name] = {
        "root": content.object_id,
        "objects": {i: base64.b64encode(o.deflate()).decode() for i, o in objects.items()},
    }
Path(sys.argv[1]).write_text(json.dumps(recorded, indent=1) + "\n")
