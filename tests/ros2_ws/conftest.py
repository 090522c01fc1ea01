"""The nodes' package is imported from its sources, without a built workspace."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "ros2_ws" / "src" / "edge_perception"))
