"""Plant a bad model: the newest weights, with the labels' outputs in another order.

A mistake that people make: weights come back from elsewhere, where the labels were sorted another
way. Every check of the files passes, and almost every answer is wrong.

    python deploy/demo/bad_model.py build/demo/server

Prints the version; `cloud-server models publish` gives it to robots. Use it on no server but a
demo's.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory


def main() -> None:
    """Save the checkpoint, print its version."""
    parser = argparse.ArgumentParser(description="Plant a bad checkpoint in a demo's server.")
    parser.add_argument("server", type=Path)
    checkpoints = Checkpoints(ServerDirectory(parser.parse_args().server).checkpoints)
    good = checkpoints.latest()
    weights = {name: np.roll(tensor, 1, axis=-1) for name, tensor in good.weights.items()}
    checkpoints.save(replace(good, version=good.version + 1, weights=weights))
    print(good.version + 1)


if __name__ == "__main__":
    main()
