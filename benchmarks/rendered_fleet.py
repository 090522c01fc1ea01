"""Frames with boxes of a whole fleet: four robots that train on two sites, three on other sites.

usage: python -m benchmarks.rendered_fleet OUT --frames 120 --unseen-frames 60 --seed 1

OUT gets a folder for each robot, hall-1-r1 and so on; see rendered_scenes.py. The first run makes
an environment with PyBullet.
"""

import argparse
import subprocess
from pathlib import Path

from benchmarks.rendered_scenes import render_fleet


def main(argv: list[str] | None = None) -> None:
    """Render what is not there yet.

    Args:
        argv: None: of the process.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="what is there already is kept")
    parser.add_argument("--frames", type=int, default=120, help="of each robot that trains")
    parser.add_argument("--unseen-frames", type=int, default=60, help="of each that does not")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    if min(args.frames, args.unseen_frames) < 1 or args.seed < 0:
        parser.error("frames must be at least 1, --seed at least 0")
    try:
        render_fleet(args.out, args.frames, args.unseen_frames, args.seed)
    except subprocess.CalledProcessError as error:  # it has said why
        parser.exit(1, f"{args.out}: {Path(error.cmd[0]).name} ended with {error.returncode}\n")


if __name__ == "__main__":
    main()
